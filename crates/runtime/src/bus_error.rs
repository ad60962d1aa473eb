//! Last words of a process that reads a mapped file beyond its end, or from a disk that fails: the system ends it by SIGBUS, and
//! nothing else would say why.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::read;

/// Most bytes of the line.
const LINE: usize = 1024;
/// Most bytes of a mapping's line that are looked at.
const MAPPING: usize = 512;

/// What the line begins with. Set before the handler is.
static PREFIX: OnceLock<&'static str> = OnceLock::new();

/// From now on, a process that ends by SIGBUS first writes one line to standard error: which file could not be read, and the likely
/// cause. `prefix` begins the line. What the system does then is as before. Once in a process.
///
/// # Errors
/// The system refuses the handler.
pub fn explain_bus_errors(prefix: &'static str) -> io::Result<()> {
    // The first one stays.
    let _ = PREFIX.set(prefix);
    // SAFETY: all bytes of a `sigaction` may be zero: no flags, an empty mask, and a handler that is set below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = explain as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
    // With the handler's begin the default action is back: the same access, tried again, ends the process.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
    // SAFETY: the action is whole, and its handler calls only what may be called in one: see there.
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs while any thread is anywhere: only system calls and arithmetic on the stack, no memory of the heap, no lock.
extern "C" fn explain(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: with SA_SIGINFO the system hands over a valid `siginfo_t`, and SIGBUS fills in the address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    let line = describe(code, address);
    // SAFETY: the bytes are the line's own; standard error may be closed, and then the call fails.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length) };
    if code <= 0 {
        // Another process sent it: the access that failed does not come again.
        // SAFETY: raising a signal whose action is the default one has no preconditions.
        unsafe { libc::raise(signal) };
    }
}

/// The line.
fn describe(code: c_int, address: usize) -> Line {
    let mut line = Line { bytes: [0; LINE], length: 0 };
    line.push(PREFIX.get().copied().unwrap_or_default().as_bytes());
    if code <= 0 {
        line.push(b"another process sent SIGBUS: the process ends");
    } else {
        line.push(b"a mapped file cannot be read: ");
        let found = mapping(address, |path| line.push(path));
        if !found {
            line.push(b"which one is unknown");
        }
        line.push(b": it was cut short while it was in use, or its disk or the memory failed (SIGBUS at 0x");
        line.push_hexadecimal(address);
        line.push(b"): the process ends, and the next start looks whether its files are whole; `dmesg` shows errors of the disk");
    }
    line.end();
    line
}

/// A line that is put together without the heap. What does not fit is left out.
struct Line {
    bytes: [u8; LINE],
    length: usize,
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        // One byte is left for the end.
        for &byte in bytes.iter().take(LINE - 1 - self.length) {
            self.bytes[self.length] = byte;
            self.length += 1;
        }
    }

    fn push_hexadecimal(&mut self, number: usize) {
        let digits = (usize::BITS / 4 - number.leading_zeros() / 4).max(1);
        for digit in (0..digits).rev() {
            self.push(&[b"0123456789abcdef"[number >> (4 * digit) & 15]]);
        }
    }

    fn end(&mut self) {
        self.bytes[self.length] = b'\n';
        self.length += 1;
    }
}

/// Tells the path of the file that is mapped at this address; returns whether there is one.
fn mapping(address: usize, mut tell: impl FnMut(&[u8])) -> bool {
    const MAPS: &CStr = c"/proc/self/maps";
    let Ok(maps) = open(MAPS, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return false };
    let (mut buffer, mut line, mut length) = ([0; 2048], [0; MAPPING], 0);
    loop {
        let Ok(count @ 1..) = read(&maps, &mut buffer) else { return false };
        for &byte in &buffer[..count] {
            if byte != b'\n' {
                if length < MAPPING {
                    line[length] = byte;
                    length += 1;
                }
                continue;
            }
            if let Some(path) = path_at(&line[..length], address) {
                tell(path);
                return true;
            }
            length = 0;
        }
    }
}

/// The path in a line of `/proc/PID/maps`, if the line is of a file that is mapped at this address:
/// `BEGIN-END PERMISSIONS OFFSET DEVICE INODE      PATH`.
fn path_at(line: &[u8], address: usize) -> Option<&[u8]> {
    let (begin, rest) = hexadecimal(line)?;
    let (end, _) = hexadecimal(rest.strip_prefix(b"-")?)?;
    let path = line.iter().position(|&byte| byte == b'/')?;
    (begin..end).contains(&address).then(|| &line[path..])
}

fn hexadecimal(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let digit = |byte: u8| usize::from(if byte <= b'9' { byte - b'0' } else { (byte | 32) - b'a' + 10 });
    let number = bytes[..digits].iter().try_fold(0_usize, |sum, &byte| Some(sum.checked_mul(16)? + digit(byte)))?;
    (digits > 0).then(|| (number, &bytes[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_is_mapped_at_an_address_is_named() {
        let line = b"7f00a000-7F00B000 r--s 00000000 fe:01 123    /var/lib/re curve/blobs/sha256/ab";
        assert_eq!(path_at(line, 0x7f00_afff), Some(&b"/var/lib/re curve/blobs/sha256/ab"[..]));
        assert_eq!((path_at(line, 0x7f00_b000), path_at(line, 0x7f00_9fff)), (None, None));
        assert_eq!(path_at(b"7f00a000-7f00b000 rw-p 00000000 00:00 0", 0x7f00_a000), None);
        // Of this very program.
        let mut named = Vec::new();
        assert!(mapping(describe as *const () as usize, |path| named.extend_from_slice(path)));
        assert_eq!(named, std::env::current_exe().unwrap().to_string_lossy().as_bytes());
    }

    #[test]
    fn the_line_says_what_to_look_at_and_is_never_too_long() {
        let text = |line: &Line| String::from_utf8(line.bytes[..line.length].to_vec()).unwrap();
        let line = text(&describe(2, 0x10));
        assert!(line.contains("which one is unknown") && line.contains("(SIGBUS at 0x10)"), "{line}");
        assert!(line.ends_with("errors of the disk\n") && line.lines().count() == 1, "{line}");
        assert_eq!(text(&describe(0, 0)).trim_end(), "another process sent SIGBUS: the process ends");
        let mut line = Line { bytes: [0; LINE], length: 0 };
        line.push(&[b'x'; 2 * LINE]);
        line.end();
        assert!(line.length == LINE && line.bytes.ends_with(b"x\n"));
    }
}
