//! The first bytes that the other end of a connection sends: they show which protocol it speaks, where it does not speak ours.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::target::{Heard, Spoken};

/// Bytes that are looked at: the header of an HTTP/2 frame.
const LOOKED_AT: usize = 9;
/// Largest first frame that is taken for HTTP/2's: its settings have 6 bytes each.
const LARGEST_SETTINGS: u32 = 6 * 64;

/// A connection whose first bytes are noted as they are read.
#[derive(Debug)]
pub(super) struct Listening<S> {
    stream: S,
    heard: Heard,
    first: Vec<u8>,
}

impl<S> Listening<S> {
    /// A new connection: what an earlier one has heard is forgotten.
    pub(super) fn new(stream: S, heard: Heard) -> Self {
        heard.note(Spoken::Nothing);
        Self { stream, heard, first: Vec::with_capacity(LOOKED_AT) }
    }

    fn note(&mut self, bytes: &[u8]) {
        let missing = LOOKED_AT - self.first.len();
        if missing > 0 && !bytes.is_empty() {
            self.first.extend(bytes.iter().take(missing));
            self.heard.note(spoken(&self.first));
        }
    }
}

/// The protocol that begins with these bytes.
fn spoken(first: &[u8]) -> Spoken {
    match first {
        [] => Spoken::Nothing,
        // A record of TLS: an alert or a part of the handshake, of version 3.x.
        [0x15 | 0x16, 0x03, ..] => Spoken::Tls,
        [b'H', b'T', b'T', b'P', b'/', ..] => Spoken::Http1,
        // The frame SETTINGS of stream 0, which every HTTP/2 server sends first.
        [a, b, c, 0x04, 0, 0, 0, 0, 0] if u32::from_be_bytes([0, *a, *b, *c]) <= LARGEST_SETTINGS => Spoken::Http2,
        _ => Spoken::Other,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = read {
            self.note(&buffer.filled()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        for (first, expected) in [
            (&b""[..], Spoken::Nothing),
            (b"\x15\x03\x03\x00\x02\x02\x32", Spoken::Tls),
            (b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76", Spoken::Tls),
            (b"HTTP/1.1 ", Spoken::Http1),
            (b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", Spoken::Http2),
            (b"\x00\x00\x1e\x04\x00\x00\x00\x00\x00", Spoken::Http2),
            (b"\x00\x00\x00\x04", Spoken::Other),
            (b"\x00\x00\x00\x06\x00\x00\x00\x00\x00", Spoken::Other),
            (b"220 mail.", Spoken::Other),
        ] {
            assert_eq!(spoken(first), expected, "{first:?}");
        }
    }

    #[tokio::test]
    async fn bytes_that_come_one_by_one_are_put_together() {
        let heard = Heard::default();
        let (one, two) = (&b"\x00\x00\x00"[..], &b"\x04\x00\x00\x00\x00\x00rest"[..]);
        let mut stream = Listening::new(tokio::io::AsyncReadExt::chain(one, two), heard.clone());
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!((heard.spoken(), all.len()), (Spoken::Http2, 13));
    }
}
