//! How programs end, or don't.

use super::*;

/// A child in the group that holds the pipes, and whose number is in `child`.
const CHILD: &str = "sleep 1000 & echo $! > $folder/child.new; mv $folder/child.new $folder/child";

/// The same, deaf to TERM.
const DEAF_CHILD: &str = "(trap '' TERM; echo ready > $folder/deaf; exec sleep 1000) & echo $! > $folder/child\n\
     until [ -s $folder/deaf ]; do sleep 0.01; done";

#[test]
fn each_cause_has_its_ending() {
    let report = outcome("exit 0", PATIENT);
    assert!(report.is_good() && report.evidence() == "exit code 0", "{report:?}");
    let report = outcome("echo trying; echo no such database >&2; exit 3", PATIENT);
    assert!(matches!(report.ending, Ending::Exited(3)), "{report:?}");
    assert_eq!(report.evidence(), "exit code 3: no such database");
    assert_eq!(text(&report), "trying\nno such database\n");
    let report = outcome("kill -KILL $$", PATIENT);
    assert!(matches!(report.ending, Ending::Signalled(9)), "{report:?}");
    assert_eq!(report.evidence(), "killed by signal 9");
}

#[test]
fn a_program_that_hangs_ends_at_its_deadline() {
    let folder = Folder::new();
    let command = folder.script("echo $$ > $folder/pid; echo waiting; exec sleep 1000");
    let report = runtime().block_on(run(Call { timeout: SHORT, ..call(command, Rest::Killed) }));
    assert!(matches!(report.ending, Ending::TimedOut), "{report:?}");
    assert_eq!(report.evidence(), "not done in time, and ended: waiting");
    assert!(report.took >= SHORT, "{:?}", report.took);
    // With the runtime, at the latest.
    let pid = folder.written("pid");
    eventually("its end", || (!runs(&pid)).then_some(()));
}

#[test]
fn a_program_has_a_grace_after_term() {
    let folder = Folder::new();
    let body =
        "trap 'echo asked > $folder/term; exit 0' TERM; echo $$ > $folder/pid; while :; do sleep 0.01; done";
    runtime().block_on(async {
        let hook = Call { timeout: SHORT, ..call(folder.script(body), Rest::LeftToDeadline) };
        let report = run(hook).await;
        assert!(matches!(report.ending, Ending::TimedOut), "{report:?}");
    });
    assert_eq!(folder.written("term"), "asked\n");
    assert!(!exists(&folder.written("pid")), "a report of a hook comes when it has ended");
}

#[test]
fn a_program_that_ignores_term_is_killed() {
    for rest in [Rest::Killed, Rest::LeftToDeadline] {
        let folder = Folder::new();
        let command = folder.script("trap '' TERM; echo $$ > $folder/pid; while :; do sleep 0.01; done");
        runtime().block_on(async {
            let report = run(Call { timeout: SHORT, ..call(command, rest) }).await;
            assert!(matches!(report.ending, Ending::TimedOut), "{report:?}");
            let pid = folder.written("pid");
            gone(&pid).await;
        });
    }
}

/// Waits until neither it nor its zombie is there. The runtime lives on meanwhile, as in the daemon.
async fn gone(pid: &str) {
    let began = Instant::now();
    while exists(pid) {
        assert!(began.elapsed() < PATIENT, "{pid} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn children_that_hold_the_pipes_delay_nothing_and_end_with_a_probe() {
    for child in [CHILD, DEAF_CHILD] {
        let folder = Folder::new();
        let command = folder.script(&format!("{child}\necho done; exit 4"));
        let began = Instant::now();
        runtime().block_on(async {
            let report = run(call(command, Rest::Killed)).await;
            assert_eq!(report.evidence(), "exit code 4: done");
            assert!(began.elapsed() < PATIENT / 2, "{:?}", began.elapsed());
            let child = folder.written("child");
            eventually("the child's end", || (!runs(&child)).then_some(()));
        });
    }
}

#[test]
fn children_of_a_hook_live_until_its_deadline() {
    for child in [CHILD, DEAF_CHILD] {
        let folder = Folder::new();
        let command = folder.script(&format!("echo $$ > $folder/pid; {child}\necho done"));
        let timeout = Duration::from_secs(3);
        let began = Instant::now();
        runtime().block_on(async {
            let report = run(Call { timeout, ..call(command, Rest::LeftToDeadline) }).await;
            assert_eq!(report.evidence(), "exit code 0: done");
            let child = folder.written("child");
            assert!(began.elapsed() >= timeout || runs(&child), "its child is gone with it");
            assert!(!exists(&folder.written("pid")), "a zombie is left");
            while runs(&child) {
                assert!(began.elapsed() < PATIENT, "the child is still there");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(began.elapsed() >= timeout, "{:?}", began.elapsed());
        });
    }
}

#[test]
fn a_flood_neither_blocks_nor_grows() {
    let report = outcome("head -c 20000000 /dev/zero | tr '\\0' x; echo; echo last; exit 5", PATIENT);
    assert_eq!(report.evidence(), "exit code 5: last");
    assert_eq!(report.output.bytes().len() as u64 + report.output.lost(), 20_000_006);
    assert_eq!(report.output.bytes().len(), 64 * 1024);
}

#[test]
fn a_flood_without_end_ends_at_the_deadline() {
    for rest in [Rest::Killed, Rest::LeftToDeadline] {
        let folder = Folder::new();
        let report = runtime().block_on(run(Call { timeout: SHORT, ..call(folder.script("yes"), rest) }));
        assert!(matches!(report.ending, Ending::TimedOut), "{report:?}");
        assert_eq!(report.output.bytes().len(), 64 * 1024);
    }
}

#[test]
fn a_program_that_closes_everything_is_waited_for() {
    let report = outcome("exec <&- >&- 2>&-; sleep 0.2; exit 6", PATIENT);
    assert!(matches!(report.ending, Ending::Exited(6)), "{report:?}");
}

#[test]
fn a_probe_that_nobody_waits_for_is_ended() {
    let folder = Folder::new();
    let command = folder.script("echo $$ > $folder/pid; exec sleep 1000");
    runtime().block_on(async {
        let probe = tokio::spawn(run(call(command, Rest::Killed)));
        let pid = loop {
            match fs::read_to_string(folder.at("pid")) {
                Ok(pid) if pid.ends_with('\n') => break pid,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        probe.abort();
        gone(&pid).await;
    });
}

#[test]
fn when_the_daemon_ends_a_probe_ends_and_a_hook_goes_on() {
    for rest in [Rest::Killed, Rest::LeftToDeadline] {
        let folder = Folder::new();
        // Says more than fits into the daemon's last read, to nobody.
        let command = folder.script(
            "echo $$ > $folder/pid; until [ -e $folder/go ]; do sleep 0.01; done\n\
             echo to nobody; echo to nobody >&2; echo well > $folder/end",
        );
        let daemon = runtime();
        drop(daemon.spawn(run(call(command, rest))));
        daemon.block_on(async {
            while !folder.at("pid").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let pid = folder.written("pid");
        drop(daemon);
        if rest == Rest::Killed {
            eventually("the probe's end", || (!runs(&pid)).then_some(()));
        } else {
            fs::write(folder.at("go"), "").unwrap();
            assert_eq!(folder.written("end"), "well\n");
        }
    }
}
