//! When metadata expire, and what is left expired by a change.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp as Time};

use super::{Role, TrustError};

/// Metadata that expire within this time are pointed out; of those that are valid for a short time, within a third of it.
const SOON: Duration = Duration::from_secs(30 * 86_400);

/// When metadata of a role expire that are signed now.
pub(super) fn expiry(role: Role, validity: &BTreeMap<Role, Duration>) -> Result<Time, TrustError> {
    let time = SignedDuration::try_from(valid_for(role, validity)).map_err(|_| TrustError::Validity { role })?;
    let expires = Time::now().checked_add(time).map_err(|_| TrustError::Validity { role })?;
    // Whole seconds, as the specification writes them.
    Time::from_second(expires.as_second()).map_err(|_| TrustError::Validity { role })
}

/// Whether metadata of a role that expire then will do so soon.
pub(super) fn is_soon(role: Role, expires: Time, validity: &BTreeMap<Role, Duration>) -> bool {
    let left = expires.duration_since(Time::now());
    let soon = SOON.min(valid_for(role, validity) / 3);
    left.is_positive() && Duration::try_from(left).is_ok_and(|left| left < soon)
}

/// Refuses a change that leaves one of these metadata as they are, where they have expired.
pub(super) fn refuse_expired(kept: &[(Role, Time)], dir: &Path) -> Result<(), TrustError> {
    let now = Time::now();
    match kept.iter().find(|(_, expires)| *expires <= now) {
        Some((role, expires)) => {
            Err(TrustError::Expired { role: *role, expired: expires.to_string(), dir: dir.to_owned() })
        }
        None => Ok(()),
    }
}

/// The roles above those that are signed again, whose metadata stay as they are: the new ones are good under theirs only. A
/// root is good by itself, so that it can be signed first, where its keys are.
pub(super) fn above(signed: &[Role]) -> Vec<Role> {
    let lowest = signed.iter().copied().filter(|role| *role != Role::Root).min();
    let is_above = |role: &Role| lowest.is_some_and(|lowest| *role < lowest) && !signed.contains(role);
    Role::ALL.into_iter().filter(is_above).collect()
}

fn valid_for(role: Role, validity: &BTreeMap<Role, Duration>) -> Duration {
    validity.get(&role).copied().unwrap_or_else(|| role.validity())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_must_be_good_under_what_is_above() {
        use Role::{Root, Snapshot, Targets, Timestamp};
        for (signed, kept) in [
            (&[Root][..], &[][..]),
            (&[Targets], &[Root]),
            (&[Snapshot], &[Root, Targets]),
            (&[Timestamp], &[Root, Targets, Snapshot]),
            (&[Root, Targets], &[]),
            (&[Root, Timestamp], &[Targets, Snapshot]),
        ] {
            assert_eq!(above(signed), kept, "{signed:?}");
        }
    }

    #[test]
    fn what_was_just_signed_does_not_expire_soon() {
        let short = BTreeMap::from([(Role::Timestamp, Duration::from_secs(60))]);
        let (now, days) = (Time::now(), |days: i64| SignedDuration::from_hours(24 * days));
        for (role, validity, left, soon) in [
            (Role::Root, &BTreeMap::new(), days(29), true),
            (Role::Root, &BTreeMap::new(), days(31), false),
            (Role::Timestamp, &BTreeMap::new(), days(30), false),
            (Role::Timestamp, &BTreeMap::new(), days(9), true),
            (Role::Timestamp, &short, SignedDuration::from_secs(59), false),
            (Role::Timestamp, &short, SignedDuration::from_secs(10), true),
            (Role::Root, &BTreeMap::new(), days(-1), false),
        ] {
            assert_eq!(is_soon(role, now.checked_add(left).unwrap(), validity), soon, "{role} {left}");
        }
    }
}
