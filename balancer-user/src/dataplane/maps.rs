//! Where maps are taken from, each once and by its name: a loaded object, or the pins that a controller has left.
//!
//! Deliberately not here: what the maps hold. Whoever takes one knows its type.

use std::path::Path;

use aya::Ebpf;
use aya::maps::{Map, MapData};

use super::DataplaneError;
use super::links::pin_error;

/// Whoever has maps.
pub trait Maps {
    /// One of them.
    ///
    /// # Errors
    /// There is none of this name, or it can't be opened.
    fn take_map(&mut self, name: &'static str) -> Result<Map, DataplaneError>;
}

impl Maps for Ebpf {
    fn take_map(&mut self, name: &'static str) -> Result<Map, DataplaneError> {
        Self::take_map(self, name).ok_or(DataplaneError::ObjectLacks(name))
    }
}

/// The pins of one layout, by their directory. Opened one by one, without a lock: for whoever only looks.
#[derive(Clone, Copy, Debug)]
pub struct Pins<'a>(pub &'a Path);

impl Maps for Pins<'_> {
    fn take_map(&mut self, name: &'static str) -> Result<Map, DataplaneError> {
        let path = self.0.join(name);
        let map = MapData::from_pin(&path).and_then(Map::from_map_data);
        map.map_err(|error| pin_error(&path, error))
    }
}
