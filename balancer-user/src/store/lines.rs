//! The lines of a file, the last one first, with a block of it in memory at a time.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;

/// What is read at a time.
const BLOCK_BYTES: u64 = 64 * 1024;
/// No record makes a line as long; what is longer is damage, and isn't kept.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// Stands for the end of such a line; with any beginning it is no JSON.
const OVERLONG: &[u8] = b"overlong";

/// Hands over each line without its end, from the last one to the first, or to the first that begins more than `max_bytes`
/// before the end. Lines may be empty, torn or no text at all.
pub(super) fn backwards(
    file: &File,
    max_bytes: u64,
    visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut end = file.metadata()?.len();
    let first = end.saturating_sub(max_bytes);
    // The end of the line whose beginning is further ahead.
    let mut carried = Vec::new();
    while end > first {
        let start = end.saturating_sub(BLOCK_BYTES).max(first);
        let mut block = vec![0; (end - start) as usize];
        file.read_exact_at(&mut block, start)?;
        block.append(&mut carried);
        let mut rest = block.as_slice();
        while let Some(at) = rest.iter().rposition(|byte| *byte == b'\n') {
            if visit(&rest[at + 1..]).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            rest = &rest[..at];
        }
        carried = if rest.len() > MAX_LINE_BYTES { OVERLONG.to_vec() } else { rest.to_vec() };
        end = start;
    }
    Ok(visit(&carried))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn lines(content: &[u8], max_bytes: u64) -> Vec<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let mut found = Vec::new();
        let end = backwards(&file, max_bytes, &mut |line| {
            found.push(line.to_vec());
            ControlFlow::Continue(())
        });
        assert!(end.unwrap().is_continue());
        found
    }

    #[test]
    fn lines_come_last_first_whole_over_the_edges_of_blocks() {
        let mut expected: Vec<Vec<u8>> =
            (0..4000).map(|n| format!("{n} {}", "x".repeat(n % 97)).into_bytes()).collect();
        let mut content = expected.join(&b'\n');
        content.push(b'\n');
        assert!(content.len() as u64 > 2 * BLOCK_BYTES);
        expected.push(Vec::new());
        expected.reverse();
        assert_eq!(lines(&content, u64::MAX), expected);
    }

    #[test]
    fn an_overlong_line_is_replaced_and_the_others_are_found() {
        let content = [b"first\n".as_slice(), &vec![b'{'; 300_000], b"\nlast"].concat();
        let found = lines(&content, u64::MAX);
        assert_eq!((found.len(), found[0].as_slice(), found[2].as_slice()), (3, &b"last"[..], &b"first"[..]));
        assert!(
            found[1].ends_with(OVERLONG) && found[1].len() < 2 * BLOCK_BYTES as usize,
            "{}",
            found[1].len()
        );
    }

    #[test]
    fn what_is_too_far_from_the_end_is_not_read() {
        assert_eq!(lines(b"one\ntwo\nthree", 9), [&b"three"[..], b"two"]);
        assert_eq!(lines(b"", 9), [&b""[..]]);
    }

    #[test]
    fn a_visitor_that_has_enough_ends_it() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\ntwo\nthree").unwrap();
        let mut count = 0;
        let end = backwards(&file, 99, &mut |_| {
            count += 1;
            ControlFlow::Break(())
        });
        assert!(end.unwrap().is_break() && count == 1);
    }
}
