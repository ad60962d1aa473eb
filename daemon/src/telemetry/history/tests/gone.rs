//! Files that are removed, moved away and brought back while the history is open, and those that are put aside.

use std::fs;

use super::*;

/// A folder for the history, and where it can be moved to.
struct Folders {
    _dir: TempDir,
    folder: PathBuf,
    aside: PathBuf,
    other: PathBuf,
}

fn folders() -> Folders {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (folder, aside, other) = (at("telemetry"), at("aside"), at("other"));
    Folders { _dir: dir, folder, aside, other }
}

fn at(folder: &Path) -> History {
    History::open(Some(folder), limits()).unwrap().history
}

/// Appends a minute with so many tokens.
fn add(history: &History, tokens: u32) {
    history.append(&minute(u64::from(tokens) * 60, tokens.into())).unwrap();
}

fn amounts(history: &History) -> Vec<f64> {
    all(history).iter().filter_map(tokens).collect()
}

/// Notices that the file is no longer there, and goes on in the one that is there, or in a new one.
fn moves(history: &History) {
    history.look();
    assert!(history.is_in_memory() && history.settle().unwrap() && !history.is_in_memory());
}

#[test]
fn a_folder_that_comes_back_has_each_record_once() {
    let Folders { folder, aside, other, .. } = &folders();
    let history = at(folder);
    let first = history.store();
    add(&history, 1);
    add(&history, 2);
    fs::rename(folder, aside).unwrap();
    add(&history, 3);
    moves(&history);
    let second = history.store();
    assert_ne!(second, first);
    add(&history, 4);
    fs::rename(folder, other).unwrap();
    fs::rename(aside, folder).unwrap();
    add(&history, 5);
    moves(&history);
    assert_eq!((history.store(), amounts(&history)), (first, vec![1.0, 2.0, 3.0, 4.0, 5.0]));
    // The same the other way round.
    add(&history, 6);
    fs::rename(folder, aside).unwrap();
    fs::rename(other, folder).unwrap();
    moves(&history);
    let expected = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    assert_eq!((history.store(), amounts(&history)), (second, expected.to_vec()));
    drop(history);
    assert_eq!(amounts(&at(folder)), expected);
}

#[test]
fn what_was_copied_is_known_after_a_restart_and_after_a_third_folder() {
    let Folders { folder, aside, .. } = &folders();
    let history = at(folder);
    let store = history.store();
    add(&history, 1);
    fs::rename(folder, aside).unwrap();
    moves(&history);
    add(&history, 2);
    drop(history);
    let history = at(folder);
    add(&history, 3);
    fs::remove_dir_all(folder).unwrap();
    moves(&history);
    add(&history, 4);
    fs::remove_dir_all(folder).unwrap();
    fs::rename(aside, folder).unwrap();
    moves(&history);
    assert_eq!((history.store(), amounts(&history)), (store, vec![1.0, 2.0, 3.0, 4.0]));
}

#[test]
fn hours_that_were_put_together_meanwhile_have_no_minute_that_the_folder_holds() {
    let Folders { folder, aside, .. } = &folders();
    let begin = 1000 * DAY;
    let none = Limits { minutes: Duration::ZERO, ..limits() };
    let history = History::open(Some(folder), none).unwrap().history;
    let append = |minutes: std::ops::Range<u64>| {
        for n in minutes {
            history.append(&minute(begin + n * 60, 1.0)).unwrap();
        }
    };
    append(0..30);
    fs::rename(folder, aside).unwrap();
    moves(&history);
    append(30..61);
    history.compact().unwrap();
    let ranges: Vec<_> = all(&history).iter().map(|record| (record.first, record.sequence)).collect();
    assert_eq!(ranges, [(1, 30), (31, 60), (61, 61)]);
    fs::remove_dir_all(folder).unwrap();
    fs::rename(aside, folder).unwrap();
    moves(&history);
    let found = amounts(&history);
    assert_eq!((found.len(), found.iter().sum::<f64>()), (30 + 2, 61.0));
}

#[test]
fn an_older_copy_of_the_folder_gets_what_it_lacks() {
    let Folders { folder, aside, other, .. } = &folders();
    let history = at(folder);
    add(&history, 1);
    add(&history, 2);
    fs::create_dir(other).unwrap();
    for file in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), other.join(file.file_name())).unwrap();
    }
    add(&history, 3);
    let store = history.store();
    fs::rename(folder, aside).unwrap();
    fs::rename(other, folder).unwrap();
    moves(&history);
    add(&history, 4);
    assert_eq!((history.store(), amounts(&history)), (store, vec![1.0, 2.0, 3.0, 4.0]));
    assert_eq!(all(&history).iter().map(|record| record.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn where_nothing_can_be_made_meanwhile_the_file_is_at_home_again_when_its_folder_is() {
    let Folders { folder, aside, .. } = &folders();
    let history = at(folder);
    let store = history.store();
    add(&history, 1);
    fs::rename(folder, aside).unwrap();
    // A file where the folder was.
    fs::write(folder, b"").unwrap();
    history.look();
    assert!(history.is_in_memory() && history.settle().is_err() && history.is_in_memory());
    add(&history, 2);
    fs::remove_file(folder).unwrap();
    fs::rename(aside, folder).unwrap();
    history.look();
    assert!(!history.is_in_memory() && !history.settle().unwrap());
    add(&history, 3);
    assert_eq!((history.store(), amounts(&history)), (store, vec![1.0, 2.0, 3.0]));
    drop(history);
    assert_eq!(amounts(&at(folder)), [1.0, 2.0, 3.0]);
}

#[test]
fn an_error_that_says_nothing_about_the_file_changes_nothing() {
    let Folders { folder, aside, .. } = &folders();
    let history = at(folder);
    fs::rename(folder, aside).unwrap();
    // A link to itself: too many levels.
    std::os::unix::fs::symlink(folder, folder).unwrap();
    history.look();
    assert!(!history.is_in_memory());
    fs::remove_file(folder).unwrap();
    history.look();
    assert!(history.is_in_memory());
    std::os::unix::fs::symlink(folder, folder).unwrap();
    history.look();
    assert!(history.is_in_memory());
    fs::remove_file(folder).unwrap();
    fs::rename(aside, folder).unwrap();
    history.look();
    assert!(!history.is_in_memory());
}

#[test]
fn the_newest_damaged_files_are_kept_under_names_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let text = |n: usize| format!("this is no database, for the time number {n}. ").repeat(99);
    // As older versions named it, by the time: it is older than all others.
    fs::write(dir.path().join("history.damaged-1700000000.db"), text(0)).unwrap();
    let aside: Vec<PathBuf> = (1..=5)
        .map(|n| {
            fs::write(&path, text(n)).unwrap();
            open(&dir).damaged.unwrap()
        })
        .collect();
    for (n, aside) in (1..).zip(&aside) {
        assert_eq!(fs::read_to_string(aside).ok(), (n > 2).then(|| text(n)), "{}", aside.display());
    }
    let names = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains("damaged")).count(), 3);
}
