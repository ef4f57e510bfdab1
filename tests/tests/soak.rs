//! What the gateway has to live through, again and again, without one connection noticing. Short in CI; `cargo xtask soak`
//! is all of it.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use balancer_tests::gateway::binary_under_test;
use balancer_tests::site::POOL;
use balancer_tests::soak::{self, Dice, Scale, Soak};
use rustix::process::Signal;

const LAB_HOST: &str = env!("CARGO_BIN_EXE_lab-host");

#[test]
fn a_daemon_that_is_killed_at_any_moment() -> Result<()> {
    let scale = Scale::wanted();
    let mut soak = Soak::start("soakkill", scale, LAB_HOST)?;
    let mut dice = Dice::cast();
    let longest = scale.time(Duration::from_millis(400), Duration::from_secs(5));
    for _ in 0..scale.rounds(8, 100) {
        sleep(dice.below(longest));
        soak.site.gateway.kill();
        sleep(dice.below(longest));
        // Half of them are killed again while they start.
        if dice.below(Duration::from_secs(1)) < Duration::from_millis(500) {
            soak.site.gateway.launch(&[])?;
            sleep(dice.below(Duration::from_millis(300)));
        }
        soak.site.gateway.start(&[])?;
    }
    let status = soak.site.gateway.status()?;
    ensure!(status.active() == "server1" && status.pool()["state"] == "serving", "{status}");
    soak.end(false)
}

#[test]
fn a_daemon_that_stands_still() -> Result<()> {
    let scale = Scale::wanted();
    let mut soak = Soak::start("soakstop", scale, LAB_HOST)?;
    soak.site.gateway.signal(Signal::STOP)?;
    sleep(scale.time(Duration::from_secs(4), Duration::from_secs(60)));
    soak.site.gateway.signal(Signal::CONT)?;
    sleep(Duration::from_secs(2));
    let status = soak.site.gateway.status()?;
    ensure!(status.are_all_up() && status.active() == "server1", "{status}");
    let is_as_at_first = |pool: &str| status.pool_named(pool)["reason"] == "initial";
    ensure!(is_as_at_first(POOL) && is_as_at_first("echo"), "{status}");
    soak.end(false)
}

#[test]
fn upgrades_to_another_build_and_back() -> Result<()> {
    let scale = Scale::wanted();
    let mut soak = Soak::start("soakbuild", scale, LAB_HOST)?;
    let first = binary_under_test()?;
    let other = soak.site.lab().dir().join("balancer-next");
    another_build(&first, &other)?;
    soak.site.gateway.verb(&["failover", POOL])?.expect(0)?;
    let mut programs = vec![program_of(&soak)?];
    for round in 0..scale.rounds(4, 20) {
        soak.site.gateway.set_binary(if round % 2 == 0 { &other } else { &first });
        soak.site.gateway.terminate()?;
        soak.site.gateway.start(&[])?;
        programs.push(program_of(&soak)?);
        let status = soak.site.gateway.status()?;
        ensure!(status.active() == "server2" && status.pool()["reason"] == "restored", "{status}");
    }
    ensure!(
        programs.windows(2).all(|pair| pair[0] != pair[1]),
        "each build is another program: {programs:?}"
    );
    ensure!(programs[0] == programs[2], "and the first one comes back: {programs:?}");
    soak.end(false)
}

#[test]
fn a_configuration_that_is_read_again_and_again() -> Result<()> {
    let scale = Scale::wanted();
    let soak = Soak::start("soakreload", scale, LAB_HOST)?;
    let right = soak::configuration(&soak.site);
    let kinds = [
        right.replace("max_fails = 1", "max_fails = 3"),
        right.replace("interval = \"1s\"", "interval = \"700ms\""),
        right.replace("passive = \"off\"", "passive = \"count\""),
        right.clone(),
    ];
    let rounds = scale.rounds(20, 300);
    for round in 0..rounds {
        let kind = &kinds[round as usize % kinds.len()];
        if round % 10 == 9 {
            soak.site.gateway.configure(&kind.replace("[gateway]", "[gatewai]"))?;
            soak.site.gateway.verb(&["reload"])?.expect(3)?;
        } else {
            soak.site.gateway.reload(kind)?;
        }
    }
    let status = soak.site.gateway.status()?;
    let accepted = u64::from(1 + rounds - rounds / 10);
    ensure!(status.0["daemon"]["config_generation"] == accepted && status.are_all_up(), "{status}");
    soak.end(false)
}

#[test]
fn an_interface_that_goes_down_and_up_or_is_made_anew() -> Result<()> {
    let scale = Scale::wanted();
    let soak = Soak::start("soaklink", scale, LAB_HOST)?;
    let gateway = soak.site.lab().gateway();
    for round in 0..scale.rounds(2, 20) {
        if round % 2 == 0 {
            gateway.run(["ip", "link", "set", "lan0", "down"])?;
            sleep(Duration::from_millis(200));
            gateway.run(["ip", "link", "set", "lan0", "up"])?;
        } else {
            gateway.run(["ip", "link", "del", "lan0"])?;
            soak.site.remake_lan()?;
        }
        soak.site.gateway.wait_until("the interface to be served", |status| {
            let attachments = status.0["attachments"].as_array().into_iter().flatten();
            attachments.filter(|one| one["error"].is_null() && one["program_id"].is_u64()).count() == 2
                && status.are_all_up()
        })?;
    }
    soak.end(true)
}

/// What the program that is attached is made of, as the kernel sums it up.
fn program_of(soak: &Soak) -> Result<u64> {
    let status = soak.site.gateway.status()?;
    let id = status.0["attachments"][0]["program_id"].as_u64().context("a program")?;
    let mut programs = aya::programs::loaded_programs().filter_map(Result::ok);
    let program = programs.find(|program| u64::from(program.id()) == id).context("it is loaded")?;
    Ok(program.tag())
}

/// Where a section of an ELF object is.
fn section(object: &[u8], name: &str) -> Option<Range<usize>> {
    let number = |at: usize, bytes: usize| {
        let bytes = object.get(at..at + bytes)?;
        Some(bytes.iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte)))
    };
    let (table, entry, count, names) =
        (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?, number(0x3e, 2)?);
    let place = |index: usize| {
        let at = table + index * entry;
        Some((number(at, 4)?, number(at + 0x18, 8)?, number(at + 0x20, 8)?))
    };
    let (_, names, _) = place(names)?;
    let is_named = |at: usize| object.get(names + at..)?.strip_prefix(name.as_bytes())?.first().copied();
    let found = (0..count).filter_map(place).find(|(at, ..)| is_named(*at) == Some(0));
    found.map(|(_, start, length)| start..start + length)
}

/// A copy of a build whose program is another one to the kernel and to `--version`, and does the same: where it moves a
/// constant into a whole register, the other moves it into half of it, which clears the rest.
fn another_build(of: &Path, to: &PathBuf) -> Result<()> {
    const MOVE_64: u8 = 0xb7;
    const MOVE_32: u8 = 0xb4;
    let object =
        std::env::var_os("BALANCER_BPF_OBJECT").context("BALANCER_BPF_OBJECT says which object is inside")?;
    let object = fs::read(object)?;
    let mut binary = fs::read(of)?;
    let at =
        binary.windows(object.len()).position(|bytes| bytes == object).context("the object is inside")?;
    let is_move =
        |word: &&mut [u8]| word[0] == MOVE_64 && word[1] < 10 && word[2..4] == [0; 2] && word[7] == 0;
    for entry in ["xdp", "xdp.frags"] {
        let code = section(&object, entry).with_context(|| format!("section {entry}"))?;
        let mut words = binary[at..][code].chunks_exact_mut(8);
        let word = words.find(is_move).context("a constant that is moved")?;
        word[0] = MOVE_32;
    }
    fs::write(to, binary)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
