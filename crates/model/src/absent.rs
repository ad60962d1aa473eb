//! Files of a checkpoint that are not there although their names are: pointers of Git LFS, which a plain `git clone` leaves in
//! the place of large files, and links to nothing, which an interrupted download leaves in Hugging Face's cache.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// What every pointer begins with.
const BEGINNING: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What to say of a file that is a pointer.
pub const POINTER: &str = "is a pointer of Git LFS, not the file itself; run `git lfs pull` in this folder, or fetch the \
                           checkpoint with `huggingface-cli download`";

/// Whether these bytes, or the first of a file, are a pointer.
pub fn is_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(BEGINNING)
}

/// The same of a file that was just opened, whose first bytes this reads. A file that cannot be read is none.
pub(crate) fn is_pointer_file(file: &File) -> bool {
    let mut first = [0; BEGINNING.len()];
    let mut file = file;
    file.read_exact(&mut first).is_ok() && is_pointer(&first)
}

/// What to say of a link whose file is not there; none for any other path.
pub fn dangling(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    let gone = !path.exists();
    gone.then(|| {
        format!("is a link to {}, which is not there: the download is incomplete, so fetch it again", target.display())
    })
}
