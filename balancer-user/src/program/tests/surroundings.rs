//! What a program gets, and what it doesn't.

use super::*;

/// What a script says, a line each.
fn said(body: &str, variables: &[(&'static str, &str)], input: &[u8]) -> Vec<String> {
    let folder = Folder::new();
    let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let call = Call { variables, input: input.to_vec(), ..call(folder.script(body), Rest::Killed) };
    let report = runtime().block_on(run(call));
    assert!(report.is_good(), "{report:?}");
    text(&report).lines().map(str::to_owned).collect()
}

#[test]
fn the_environment_is_exactly_what_was_given_and_a_path() {
    // What the kernel handed over, before the shell adds anything.
    let variables = [("BALANCER_POOL", "passwords"), ("BALANCER_FROM", "")];
    let mut said = said("tr '\\0' '\\n' < /proc/$$/environ", &variables, b"");
    said.sort();
    assert_eq!(
        said,
        [
            "BALANCER_FROM=",
            "BALANCER_POOL=passwords",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        ]
    );
}

#[test]
fn stdin_is_exactly_what_was_given_and_ends() {
    assert_eq!(said("cat; echo end", &[], b""), ["end"]);
    let input: Vec<u8> = (0..300_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
    assert_eq!(said("wc -c; echo end", &[], &input), ["300000", "end"]);
    let line = said("cat", &[], b"{\"pool\":\"\xc3\xa4\"}");
    assert_eq!(line, ["{\"pool\":\"ä\"}"]);
}

#[test]
fn a_program_that_never_reads_blocks_nothing() {
    assert_eq!(said("echo no", &[], &vec![0; 1 << 20]), ["no"]);
    assert_eq!(said("exec <&-; sleep 0.1; echo closed", &[], &vec![0; 1 << 20]), ["closed"]);
}

#[test]
fn it_stands_in_the_root_folder_and_leads_its_group() {
    let said = said("pwd; echo $$; cut -d' ' -f5 /proc/$$/stat", &[], b"");
    assert_eq!(said[0], "/");
    assert_eq!(said[1], said[2], "pid and group");
}

#[test]
fn it_inherits_nothing_that_we_have_opened() {
    let held = fs::File::open("/dev/null").unwrap();
    // A shell opens its script at 10 or 255. `ls` also has the folder open that it lists, at the next free number.
    let seen = said("ls /proc/$$/fd; echo; exec ls /proc/self/fd", &[], b"");
    drop(held);
    let handed = |number: &str| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
        u32::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & 0o2_000_000 == 0)
    };
    let beyond = |numbers: &[String]| -> Vec<String> {
        let known = |number: &&String| ["0", "1", "2"].contains(&number.as_str()) || handed(number);
        numbers.iter().filter(|number| !known(number)).cloned().collect()
    };
    let halves: Vec<&[String]> = seen.split(String::is_empty).collect();
    assert_eq!(halves.len(), 2, "{seen:?}");
    for half in halves {
        assert!(beyond(half).len() <= 1, "{:?} of {seen:?}", beyond(half));
    }
}

#[test]
fn no_signal_is_blocked_and_none_of_ours_ignored() {
    let status = said("exec grep -E '^Sig(Blk|Ign)' /proc/self/status", &[], b"");
    let bits = |name: &str| {
        let line = status.iter().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    };
    assert_eq!(bits("SigBlk"), 0, "{status:?}");
    // TERM would not end it, a broken pipe would not be told, and a child's exit code would be lost.
    for signal in [15, 13, 17] {
        assert_eq!(bits("SigIgn") & (1 << (signal - 1)), 0, "signal {signal}: {status:?}");
    }
}

#[test]
fn a_binary_runs_under_its_own_name() {
    let folder = Folder::new();
    let copied = std::process::Command::new("/bin/sh")
        .args(["-c", "cp \"$(command -v cat)\" \"$1\" && chmod 0755 \"$1\"", "sh"])
        .arg(folder.at("program"))
        .status();
    assert!(copied.unwrap().success());
    let arguments = vec!["/proc/self/cmdline".to_owned(), "/proc/self/fd/3".to_owned()];
    let command = CommandLine { program: folder.at("program"), arguments };
    let report = runtime().block_on(run(call(command, Rest::Killed)));
    let expected = format!("{}\0/proc/self/cmdline\0", folder.at("program").display());
    assert!(text(&report).starts_with(&expected), "{report:?}");
}

#[test]
fn arguments_are_not_read_by_a_shell() {
    let folder = Folder::new();
    let mut command = folder.script("for word in \"$@\"; do echo \"<$word>\"; done");
    command.arguments = ["a b", "$HOME; `id`", "*"].map(str::to_owned).to_vec();
    let report = runtime().block_on(run(call(command, Rest::Killed)));
    assert_eq!(text(&report), "<a b>\n<$HOME; `id`>\n<*>\n");
}
