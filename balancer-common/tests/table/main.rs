//! The flow table's algorithm on the host: against a model, under load, its hash against chosen keys, and in every order
//! in which threads can come. With threads that really run it is tested in `table_stress.rs`, in the kernel elsewhere.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

mod bucket;
mod cells;
mod load;
mod model;
mod orders;
mod spread;
