//! Frames of 64 bytes as fast as they go, in batches as a network card delivers them.
//!
//! The kernel itself replays the frame (BPF_PROG_TEST_RUN with live frames, Linux 5.18) through a program that writes
//! it anew and redirects it to the client's interface. A packet socket can't do it: on a virtual cable each of its frames is handled to the end
//! before the next one is sent, so sending costs more than what is measured, and nothing is ever in a batch. Whoever
//! measures counts where the frames arrive.

use std::{
    io::{Write, stdout},
    net::SocketAddr,
    path::Path,
};

use anyhow::{Context, Result};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions};

use super::{ack, programs::Programs};

/// The kernel's own default: what NAPI hands over at a time.
const BATCH: u32 = 64;

/// Until it is killed: each of these system calls ends with a wait of many milliseconds, so one has to do.
pub(super) fn flood(target: SocketAddr, object: &Path, interface: &str, is_made_up: bool) -> Result<()> {
    // Kept to the end: a connection that closes takes its flow with it.
    let (frame, _connection) = if is_made_up {
        (ack::made_up(interface, target)?, None)
    } else {
        let (frame, connection) = ack::established(interface, target)?;
        (frame, Some(connection))
    };
    let programs = Programs::replaying(object, interface, &frame)?;
    let replay = programs.replay()?;
    println!("ready");
    stdout().flush().context("say ready")?;
    loop {
        let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        let options = TestRunOptions {
            data_in: Some(&frame[..]),
            repeat: u32::MAX,
            attrs,
            ..TestRunOptions::default()
        };
        replay.test_run(options).context("replay frames (needs Linux 5.18)")?;
    }
}
