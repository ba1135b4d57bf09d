//! Control frames: a length (`u32`, big-endian) and that many bytes.
//!
//! A length above [`MAX_FRAME_BYTES`] is refused before anything is allocated, and every frame has
//! a deadline. What the bytes mean is the business of `wire`. After an error the stream may stand in
//! the middle of a frame: drop it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::FrameError;

/// The longest control frame, in bytes, without its length.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;

/// Reads one frame, waiting at most `within` for all of it.
///
/// # Errors
/// [`FrameError::Closed`] when the peer ended the stream before a new frame began; otherwise when the
/// frame is too long, late or cut short.
pub async fn read_frame<S>(io: &mut S, within: Duration) -> Result<Vec<u8>, FrameError>
where
    S: AsyncRead + Unpin,
{
    timeout(within, read(io)).await.unwrap_or(Err(FrameError::TimedOut { after: within }))
}

/// Writes one frame and flushes it, waiting at most `within`.
///
/// # Errors
/// [`FrameError::TooLong`] before a byte is written; otherwise when the stream breaks or is not
/// drained in time.
pub async fn write_frame<S>(io: &mut S, body: &[u8], within: Duration) -> Result<(), FrameError>
where
    S: AsyncWrite + Unpin,
{
    timeout(within, write(io, body)).await.unwrap_or(Err(FrameError::TimedOut { after: within }))
}

async fn read<S: AsyncRead + Unpin>(io: &mut S) -> Result<Vec<u8>, FrameError> {
    let mut head = [0; 4];
    let first = io.read(&mut head).await?;
    if first == 0 {
        return Err(FrameError::Closed);
    }
    io.read_exact(&mut head[first..]).await?;
    let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if len > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong { len, max: MAX_FRAME_BYTES });
    }
    let mut body = vec![0; len];
    io.read_exact(&mut body).await?;
    Ok(body)
}

async fn write<S: AsyncWrite + Unpin>(io: &mut S, body: &[u8]) -> Result<(), FrameError> {
    let len = body.len();
    if len > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong { len, max: MAX_FRAME_BYTES });
    }
    let head = u32::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    io.write_all(&head.to_be_bytes()).await?;
    io.write_all(body).await?;
    io.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(200);

    /// What `read_frame` makes of these bytes followed by the end of the stream.
    async fn read_bytes(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
        read_frame(&mut &bytes[..], SOON).await
    }

    #[tokio::test]
    async fn a_frame_survives_a_round_trip_at_every_edge_length() {
        for len in [0, 1, 255, MAX_FRAME_BYTES] {
            let body = vec![7; len];
            let mut bytes = Vec::new();
            write_frame(&mut bytes, &body, SOON).await.unwrap();
            assert_eq!(bytes.len(), len + 4);
            assert_eq!(read_bytes(&bytes).await.unwrap(), body);
        }
    }

    #[tokio::test]
    async fn an_oversized_frame_is_refused_on_both_sides() {
        let over = MAX_FRAME_BYTES + 1;
        let mut bytes = Vec::new();
        let written = write_frame(&mut bytes, &vec![0; over], SOON).await;
        assert!(matches!(written, Err(FrameError::TooLong { len, .. }) if len == over));
        assert!(bytes.is_empty());
        for len in [over, u32::MAX as usize] {
            let head = u32::try_from(len).unwrap().to_be_bytes();
            let read = read_bytes(&head).await;
            assert!(matches!(read, Err(FrameError::TooLong { len: l, .. }) if l == len));
        }
    }

    #[tokio::test]
    async fn an_end_between_frames_differs_from_an_end_within_one() {
        assert!(matches!(read_bytes(&[]).await, Err(FrameError::Closed)));
        for cut in [&[0, 0][..], &[0, 0, 0, 2, 9]] {
            assert!(matches!(read_bytes(cut).await, Err(FrameError::Io(_))));
        }
    }

    #[tokio::test]
    async fn a_silent_peer_does_not_hold_a_reader_past_its_deadline() {
        let (mut ours, _theirs) = tokio::io::duplex(64);
        let read = read_frame(&mut ours, SOON).await;
        assert!(matches!(read, Err(FrameError::TimedOut { .. })));
    }
}
