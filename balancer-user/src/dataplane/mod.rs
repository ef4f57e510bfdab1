//! The data plane as the controller sees it: the only module that touches aya, maps and netlink.
//!
//! `object` loads the program, `maps` says where its maps come from, `pins` keeps everything alive without a controller,
//! `attach` puts the program on interfaces (`links` are their pins, `advice` says what is in the way), `tables` are the maps
//! with types, `roles` those that tell what addresses and ports are, `interfaces` those of interfaces, `signals` those about
//! connection attempts, `slots` decides who lives where in them, `flows` lists and ages flows (`lines` is their memory,
//! `clock` their time), `cut` ends them (`cut_all` those of several backends), `held` sends those on their way that wait
//! (`segment` are their frames, `exits` the ways for them), `failures` hears of attempts that backends did not take (`ring`
//! is how the packet path tells), `rescue` looks for those that nobody answers, `left` tells whom they have left,
//! `neighbours` knows the way to backends, `news` hears that it has changed, `traces` shows packets to people, `features`
//! what drivers can do; `survey` and `trial` only look, for `balancer doctor`. Deliberately absent: any opinion about which
//! backend should be active.

pub mod advice;
pub mod attach;
pub mod clock;
pub mod cut;
pub mod cut_all;
mod error;
pub mod exits;
pub mod failures;
pub mod features;
pub mod flows;
mod generic;
pub mod held;
mod interfaces;
mod left;
mod lines;
pub mod links;
pub mod maps;
pub mod neighbours;
pub mod news;
pub mod object;
pub mod pins;
pub mod repeats;
pub mod rescue;
pub mod ring;
mod roles;
mod seed;
mod segment;
mod signals;
pub mod slots;
pub mod survey;
pub mod tables;
pub mod traces;
pub mod trial;
mod words;

pub use error::{DataplaneError, Kind};

/// The layout of everything that is shared with the kernel, as pin paths and `--version` tell it.
pub fn layout_version() -> String {
    format!("v{}", balancer_common::abi::LAYOUT_VERSION)
}
