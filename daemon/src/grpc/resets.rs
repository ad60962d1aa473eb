//! Calls that the HTTP/2 library refuses before any code of ours sees them.
//!
//! h2 resets a stream whose authority is no valid one, and says so to the client only. Clients of gRPC's C core, Java and Swift
//! send the escaped path of a Unix socket as authority, so that all of their calls end like that. The frames that the server
//! writes show it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Bytes of a frame's header (RFC 9113, section 4.1),
const HEADER: usize = 9;
/// and of a reset with its error code (section 6.4).
const RESET: usize = HEADER + 4;
const RST_STREAM: u8 = 0x3;
const PROTOCOL_ERROR: u32 = 0x1;

/// The writing half of a connection. Calls `tell` for each stream that is reset with `PROTOCOL_ERROR`.
#[derive(Debug)]
pub(super) struct Watched<W, F> {
    inner: W,
    frames: Frames,
    tell: F,
}

/// Where the bytes written so far end.
#[derive(Debug, Default)]
struct Frames {
    /// The beginning of a frame, while that is incomplete.
    begun: Vec<u8>,
    /// Bytes of a frame that are not looked at.
    skip: usize,
}

impl<W, F> Watched<W, F> {
    pub(super) fn new(inner: W, tell: F) -> Self {
        Self { inner, frames: Frames::default(), tell }
    }
}

impl<W, F: FnMut()> Watched<W, F> {
    fn look<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>, mut written: usize) {
        for slice in slices {
            let taken = slice.len().min(written);
            for _ in 0..self.frames.resets(&slice[..taken]) {
                (self.tell)();
            }
            written -= taken;
        }
    }
}

impl Frames {
    /// Takes the next bytes, and counts the resets for a violation of the protocol that end in them.
    fn resets(&mut self, mut bytes: &[u8]) -> usize {
        let mut resets = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = if self.begun.get(3) == Some(&RST_STREAM) { RESET } else { HEADER };
            let taken = bytes.len().min(wanted - self.begun.len());
            self.begun.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            match self.begun[..] {
                [_, _, _, RST_STREAM, _, _, _, _, _, a, b, c, d] => {
                    resets += usize::from(u32::from_be_bytes([a, b, c, d]) == PROTOCOL_ERROR);
                    self.begun.clear();
                }
                [a, b, c, kind, _, _, _, _, _] if kind != RST_STREAM => {
                    self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                    self.begun.clear();
                }
                _ if bytes.is_empty() => return resets,
                _ => {}
            }
        }
    }
}

impl<W: AsyncWrite + Unpin, F: FnMut() + Unpin> AsyncWrite for Watched<W, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = written {
            self.look(std::iter::once(bytes), written);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(written)) = written {
            self.look(slices.iter().map(|slice| &**slice), written);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn resets_are_found_wherever_the_bytes_are_cut() {
        let data = frame(0x0, &frame(RST_STREAM, &[0, 0, 0, 1]));
        let all = [
            frame(0x4, &[0; 12]),
            frame(0x4, &[]),
            frame(RST_STREAM, &[0, 0, 0, 1]),
            data,
            frame(RST_STREAM, &[0, 0, 0, 8]),
            frame(RST_STREAM, &[0, 0, 0, 1]),
            frame(0x0, &[7; 70_000]),
            frame(RST_STREAM, &[0, 0, 0, 1]),
        ]
        .concat();
        for size in [1, 2, 3, 5, 9, 13, 64, 1000, all.len()] {
            let mut frames = Frames::default();
            assert_eq!(all.chunks(size).map(|bytes| frames.resets(bytes)).sum::<usize>(), 3, "in pieces of {size}");
            assert_eq!((frames.skip, frames.begun.len()), (0, 0));
        }
    }
}
