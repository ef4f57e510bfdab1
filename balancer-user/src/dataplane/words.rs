//! Arrays that are mapped into memory, word by word: a change is one aligned store, seen whole by every CPU, and reading
//! takes no system call.
//!
//! A map update through the system call is a plain copy, which promises nothing of the kind. All access is atomic, also
//! to what the packet path writes at the same time; what several words mean together is their reader's business.
//!
//! What reads a word is marked to be inlined: a walk over a million flows reads some twenty million words, and without a mark
//! a caller that is compiled in another unit makes a call for each.
#![expect(unsafe_code, reason = "the kernel's memory is reached through a mapping")]

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::DataplaneError;

/// A mapped array, as words.
#[derive(Debug)]
pub(super) struct MappedWords {
    words: NonNull<AtomicU64>,
    length: usize,
}

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

// SAFETY: the mapping belongs to this value alone until it is dropped, and all access to it is atomic.
unsafe impl Send for MappedWords {}
// SAFETY: as above.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Maps an array that was made with `BPF_F_MMAPABLE`, whose elements have so many words.
    pub(super) fn new(map: &MapData, name: &'static str, words: usize) -> Result<Self, DataplaneError> {
        let info = map.info().map_err(DataplaneError::map("reading the size", name))?;
        if info.value_size() as usize != words * WORD {
            return Err(DataplaneError::ObjectLacks(name));
        }
        let length = info.max_entries() as usize * words;
        // SAFETY: a new mapping at an address of the kernel's choice. It covers `length` words, as many as the array has
        // (its elements are whole words, so one is followed by the next): every access within is backed by the map.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length * WORD,
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

    /// How many words there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.length
    }

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.length, "slot {index} of {}", self.length);
        // SAFETY: within the mapping, which is page-aligned and lives as long as self.
        unsafe { self.words.add(index).as_ref() }
    }

    #[inline]
    pub(super) fn load(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    /// Everything that was written before is seen by whoever sees the new word.
    pub(super) fn store(&self, index: usize, word: u64) {
        self.word(index).store(word, Ordering::Release);
    }

    /// Without a promise of what was written before; the loads of a line cost no more than plain ones.
    #[inline]
    pub(super) fn peek(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Relaxed)
    }

    /// Compare-and-swap.
    pub(super) fn exchange(&self, index: usize, old: u64, new: u64) -> bool {
        self.word(index).compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Adds to a word.
    pub(super) fn add(&self, index: usize, value: u64) {
        self.word(index).fetch_add(value, Ordering::AcqRel);
    }

    /// Stores one of the bytes; the first one stands at the lowest address.
    pub(super) fn store_byte(&self, at: usize, value: u8) {
        let _ = self.word(at / WORD);
        // SAFETY: within the mapping, as the word is. To the processor a byte is as atomic as the word, whoever reads which of
        // them.
        let byte = unsafe { self.words.cast::<AtomicU8>().add(at).as_ref() };
        byte.store(value, Ordering::Release);
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nothing refers to any more.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), self.length * WORD) };
    }
}
