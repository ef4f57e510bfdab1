//! The archive that the kernel unpacks into its first file system: cpio's "newc" format, not compressed.

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive under construction. Paths are absolute, their folders are made on the way.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// A file that may be executed: in a machine of one user all may be.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.parents(path);
        self.entry(path, PROGRAM, content);
    }

    pub(super) fn folder(&mut self, path: &str) {
        self.parents(path);
        if self.folders.insert(path.to_owned()) {
            self.entry(path, DIRECTORY, &[]);
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("/TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/')
            && !parent.is_empty()
        {
            self.folder(parent);
        }
    }

    /// A header of thirteen numbers in hex, the name, the content; name and content end on multiples of four.
    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let name = path.trim_start_matches('/');
        self.entries += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let length = |bytes: usize| u32::try_from(bytes).expect("nothing here is as large as 4 GB");
        // inode, mode, user, group, links, time, content's length, device (two), special device (two), name's length
        // with its zero byte, checksum.
        let (size, name_size) = (length(content.len()), length(name.len() + 1));
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, modes and contents, as the kernel reads them.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, String)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).unwrap();
                u32::from_str_radix(text, 16).unwrap() as usize
            };
            let (mode, size, name_size) = (field(1) as u32, field(6), field(11));
            let content_at = (110 + name_size).next_multiple_of(4);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let content = String::from_utf8(bytes[content_at..content_at + size].to_vec()).unwrap();
            if name == "TRAILER!!!" {
                return entries;
            }
            entries.push((name, mode, content));
            bytes = &bytes[(content_at + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn files_and_their_folders_are_read_back() {
        let mut archive = Archive::default();
        archive.file("/init", b"#!/bin/sh\n");
        archive.file("/lib/x86/libc.so.6", b"12345");
        archive.folder("/lib");
        archive.folder("/proc");
        let expected = [
            ("init", PROGRAM, "#!/bin/sh\n"),
            ("lib", DIRECTORY, ""),
            ("lib/x86", DIRECTORY, ""),
            ("lib/x86/libc.so.6", PROGRAM, "12345"),
            ("proc", DIRECTORY, ""),
        ];
        let expected = expected.map(|(name, mode, content)| (name.to_owned(), mode, content.to_owned()));
        assert_eq!(read(&archive.finish()), expected);
    }
}
