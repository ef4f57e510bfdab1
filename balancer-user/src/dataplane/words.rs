//! Arrays of 64-bit words that are mapped into memory: a change is one aligned store, seen whole by every CPU.
//!
//! A map update through the system call is a plain copy, which promises nothing of the kind.
#![expect(unsafe_code, reason = "the kernel's memory is reached through a mapping")]

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::DataplaneError;

/// A mapped array of words.
#[derive(Debug)]
pub(super) struct MappedWords {
    words: NonNull<AtomicU64>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone until it is dropped, and all access to it is atomic.
unsafe impl Send for MappedWords {}
// SAFETY: as above.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Maps an array of `length` words that was made with `BPF_F_MMAPABLE`.
    pub(super) fn new(map: &MapData, name: &'static str, length: usize) -> Result<Self, DataplaneError> {
        let info = map.info().map_err(DataplaneError::map("reading the size", name))?;
        if info.value_size() != 8 || (info.max_entries() as usize) < length {
            return Err(DataplaneError::ObjectLacks(name));
        }
        // SAFETY: a new mapping at an address of the kernel's choice. It covers `length` words of an array that has at
        // least as many (checked above), so every access within `length` is backed by the map.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length * size_of::<u64>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )
        }
        .map_err(|error| DataplaneError::Mapping { map: name, source: error.into() })?;
        let words = NonNull::new(start.cast())
            .ok_or(DataplaneError::Mapping { map: name, source: std::io::Error::other("null") })?;
        Ok(Self { words, length })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.length, "slot {index} of {}", self.length);
        // SAFETY: within the mapping, which is page-aligned and lives as long as self.
        unsafe { self.words.add(index).as_ref() }
    }

    pub(super) fn load(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    /// Everything that was written before is seen by whoever sees the new word.
    pub(super) fn store(&self, index: usize, word: u64) {
        self.word(index).store(word, Ordering::Release);
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nothing refers to any more.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), self.length * size_of::<u64>()) };
    }
}
