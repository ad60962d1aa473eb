//! Weight files in memory: read ahead where the page cache does not have them, and locked where that is wanted.
//!
//! ONNX Runtime maps the same files by itself when it loads a graph. What happens here warms the page cache under that
//! mapping; our own mapping is never read through, so that a file that shrinks meanwhile is an error and no signal.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::Access;
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

/// Bytes that are looked at and read at once. A multiple of every page size, huge ones included.
const PIECE: usize = 64 << 20;
/// Bytes of a read where the kernel cannot fill a mapping (before Linux 5.14).
const BUFFER: usize = 1 << 20;

/// Weight files, mapped. They stay locked, if they are, until this is dropped.
#[derive(Debug)]
pub struct Weights {
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    map: MmapRaw,
    /// Whether the kernel tells us what is in the page cache. It says "all of it" of files that are not ours.
    tells: bool,
}

/// What [`Weights::read_ahead`] found.
#[derive(Debug)]
pub struct ReadAhead {
    /// Bytes of the pieces that were not wholly in the page cache.
    pub bytes: u64,
    /// Why it ended early, if it did.
    pub error: Option<WeightsError>,
}

/// Why weights cannot be mapped, read or locked.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file cannot be opened, mapped or read.
    #[error("{}: cannot be read ahead: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system does not lock as much.
    #[error(
        "engine.lock_weights = true, but the weights cannot be locked in memory: {bytes} bytes are needed, and the limit \
         RLIMIT_MEMLOCK is {limit}{}. Raise it (LimitMEMLOCK={bytes} in the systemd unit, `ulimit -l {}` in a shell), give \
         the process CAP_IPC_LOCK, or set engine.lock_weights = false",
        because(source),
        bytes.div_ceil(1024)
    )]
    Lock {
        /// What all files take, in whole pages.
        bytes: u64,
        /// The limit in words.
        limit: String,
        /// What the system said, if it was asked.
        source: Option<io::Error>,
    },
}

impl WeightsError {
    /// Whether a file cannot be read: it was cut short, its disk fails, or the file system's own checks do. Reading it through a
    /// mapping would end the process.
    pub fn is_unreadable(&self) -> bool {
        /// `is_unreadable` in `crates/bundle/src/error.rs` has the same list, and says what each means; a test of the daemon's store
        /// compares them.
        const CODES: [i32; 4] = [libc::EIO, libc::EBADMSG, libc::EUCLEAN, libc::EHWPOISON];
        let Self::Io { source, .. } = self else { return false };
        // `madvise` fails with EFAULT for pages that cannot be brought in, whatever the reason.
        let of_mapping = source.raw_os_error() == Some(libc::EFAULT);
        let of_disk = source.raw_os_error().is_some_and(|code| CODES.contains(&code));
        of_mapping || of_disk || source.kind() == ErrorKind::UnexpectedEof
    }
}

fn because(source: &Option<io::Error>) -> String {
    source.as_ref().map(|error| format!(" (the system says: {error})")).unwrap_or_default()
}

impl Weights {
    /// Maps these files, without reading them.
    ///
    /// # Errors
    /// A file cannot be opened or mapped.
    pub fn map(paths: &[PathBuf]) -> Result<Self, WeightsError> {
        let shards =
            paths.iter().map(|path| Shard::map(path).map_err(|source| WeightsError::Io { path: path.clone(), source }));
        Ok(Self { shards: shards.collect::<Result<_, _>>()? })
    }

    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.map.len() as u64).sum()
    }

    /// Brings what is missing into the page cache, in large pages where the file system has them. Blocks as long as the
    /// disk takes; where nothing is missing, for a few milliseconds. `there` is told the bytes of each piece once it is there.
    pub fn read_ahead(&self, there: &mut dyn FnMut(u64)) -> ReadAhead {
        let mut bytes = 0;
        for shard in &self.shards {
            if let Err(source) = shard.read_ahead(&mut bytes, there) {
                let error = WeightsError::Io { path: shard.path.clone(), source };
                return ReadAhead { bytes, error: Some(error) };
            }
        }
        ReadAhead { bytes, error: None }
    }

    /// Whether the process may lock as much as [`lock`](Self::lock) will, told without reading anything.
    ///
    /// # Errors
    /// [`WeightsError::Lock`] when RLIMIT_MEMLOCK is too low, and the process lacks the capability to pass over it.
    pub fn check_limit(&self) -> Result<(), WeightsError> {
        let limited = getrlimit(Resource::Memlock).current.is_some_and(|limit| limit < self.locked_bytes());
        let free =
            || rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
        if limited && !free() { Err(self.refused(None)) } else { Ok(()) }
    }

    /// Keeps all files in memory until this is dropped. Reads what is missing, page by page where
    /// [`read_ahead`](Self::read_ahead) was not called before.
    ///
    /// # Errors
    /// [`WeightsError::Lock`] when the system does not allow it.
    pub fn lock(&self) -> Result<(), WeightsError> {
        self.shards.iter().try_for_each(|shard| shard.map.lock().map_err(|source| self.refused(Some(source))))
    }

    /// Bytes of all files in whole pages, as the limit counts them.
    fn locked_bytes(&self) -> u64 {
        let page = rustix::param::page_size() as u64;
        self.shards.iter().map(|shard| (shard.map.len() as u64).next_multiple_of(page)).sum()
    }

    fn refused(&self, source: Option<io::Error>) -> WeightsError {
        let limit = getrlimit(Resource::Memlock).current;
        let limit = limit.map_or_else(|| "unlimited".to_owned(), |limit| format!("{limit} bytes"));
        WeightsError::Lock { bytes: self.locked_bytes(), limit, source }
    }
}

impl Shard {
    fn map(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let map = MmapOptions::new().map_raw_read_only(&file)?;
        // As the kernel decides it for mincore.
        let tells = file.metadata()?.uid() == rustix::process::geteuid().as_raw()
            || rustix::fs::access(path, Access::WRITE_OK).is_ok();
        Ok(Self { path: path.to_owned(), file, map, tells })
    }

    /// Adds the bytes of every piece that was not wholly there to `read`.
    fn read_ahead(&self, read: &mut u64, there: &mut dyn FnMut(u64)) -> io::Result<()> {
        self.advise_huge_pages();
        for start in (0..self.map.len()).step_by(PIECE) {
            let len = PIECE.min(self.map.len() - start);
            if self.resident(start, len)? {
                there(len as u64);
                continue;
            }
            match self.map.advise_range(Advice::PopulateRead, start, len) {
                // The kernel does not know it.
                Err(error) if error.kind() == ErrorKind::InvalidInput => self.read(start, len)?,
                outcome => outcome?,
            }
            *read += len as u64;
            there(len as u64);
        }
        Ok(())
    }

    /// Pages that are read through this mapping become large ones, where kernel and file system can.
    fn advise_huge_pages(&self) {
        if let Err(error) = self.map.advise(Advice::HugePage) {
            tracing::debug!(%error, "no large pages for the weights");
        }
    }

    /// Whether this range is in the page cache, as far as the kernel tells.
    fn resident(&self, start: usize, len: usize) -> io::Result<bool> {
        if !self.tells {
            return Ok(false);
        }
        let mut pages = vec![0_u8; len.div_ceil(rustix::param::page_size())];
        // SAFETY: `start` is a multiple of the page size and `start + len` is within our own mapping, which lives as long
        // as `self`; the kernel writes one byte a page, and there are as many. No memory of the mapping is touched.
        let outcome =
            unsafe { libc::mincore(self.map.as_mut_ptr().wrapping_add(start).cast(), len, pages.as_mut_ptr().cast()) };
        if outcome != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(pages.iter().all(|page| page & 1 == 1))
    }

    /// Reads this range to nowhere.
    fn read(&self, start: usize, len: usize) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER.min(len)];
        for at in (start..start + len).step_by(BUFFER) {
            let part = BUFFER.min(start + len - at);
            self.file.read_exact_at(&mut buffer[..part], at as u64)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: usize) -> PathBuf {
        let path = std::env::temp_dir().join(format!("recurve-weights-{}-{name}", std::process::id()));
        std::fs::write(&path, vec![7; bytes]).unwrap();
        path
    }

    #[test]
    fn what_was_just_written_is_in_memory() {
        let path = file("cached", 300_001);
        let weights = Weights::map(&[path.clone(), path.clone()]).unwrap();
        assert_eq!(weights.bytes(), 600_002);
        let ahead = weights.read_ahead(&mut |_| {});
        assert!(ahead.error.is_none(), "{:?}", ahead.error);
        assert_eq!(ahead.bytes, 0);
        // Without knowing so, it is read in either way.
        let mut weights = weights;
        weights.shards[0].tells = false;
        assert_eq!(weights.read_ahead(&mut |_| {}).bytes, 300_001);
        weights.shards[0].read(0, 300_001).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_shrank_is_an_error_and_no_signal() {
        let path = file("shrank", 3 << 20);
        let mut weights = Weights::map(std::slice::from_ref(&path)).unwrap();
        weights.shards[0].tells = false;
        File::options().write(true).open(&path).unwrap().set_len(10_000).unwrap();
        assert!(weights.shards[0].read(0, 3 << 20).is_err());
        let error = weights.read_ahead(&mut |_| {}).error.expect("an error");
        assert!(error.is_unreadable(), "{error:?}");
        let error = error.to_string();
        assert!(error.contains("shrank") && error.contains("cannot be read ahead"), "{error}");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_the_disk_and_the_file_system_report_is_unreadable_and_a_refusal_is_not() {
        let is_unreadable = |code| {
            let source = io::Error::from_raw_os_error(code);
            WeightsError::Io { path: "shard".into(), source }.is_unreadable()
        };
        for code in [libc::EIO, libc::EBADMSG, libc::EUCLEAN, libc::EHWPOISON, libc::EFAULT] {
            assert!(is_unreadable(code), "{code}");
        }
        for code in [libc::EACCES, libc::EMFILE, libc::ENOENT, libc::ENOMEM] {
            assert!(!is_unreadable(code), "{code}");
        }
    }

    #[test]
    fn missing_files_are_named() {
        let error = Weights::map(&["/nowhere/shard".into()]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/shard"), "{error}");
    }

    #[test]
    fn the_refusal_says_what_to_do() {
        let source = Some(io::Error::from(ErrorKind::OutOfMemory));
        let error = WeightsError::Lock { bytes: 1_048_577, limit: "65536 bytes".into(), source }.to_string();
        for part in [
            "1048577 bytes",
            "65536 bytes",
            "LimitMEMLOCK=1048577",
            "ulimit -l 1025",
            "CAP_IPC_LOCK",
            "lock_weights = false",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
