//! Which files are run.

use std::os::unix::fs::symlink;

use std::os::unix::fs::MetadataExt as _;

use super::*;

/// What is said of a file that isn't run.
fn refusal(program: PathBuf) -> String {
    let report = runtime().block_on(run(call(CommandLine { program, arguments: vec![] }, Rest::Killed)));
    assert!(matches!(report.ending, Ending::NotTrusted(_)) && report.ending.never_ran(), "{report:?}");
    report.ending.to_string()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn only_a_file_of_roots_alone_is_run() {
    let folder = Folder::new();
    let file = folder.script("exit 0").program;
    for (mode, words) in [
        (0o775, "others than its owner may write to it (mode 0775): chmod it to 0755"),
        (0o757, "(mode 0757)"),
        (0o644, "is not executable: chmod it to 0755"),
    ] {
        set_mode(&file, mode);
        assert!(refusal(file.clone()).contains(words), "{}", refusal(file));
    }
    set_mode(&file, 0o755);
    std::os::unix::fs::chown(&file, Some(1234), None).unwrap();
    assert!(refusal(file.clone()).contains("belongs to uid 1234"), "{}", refusal(file));
}

#[test]
fn a_folder_above_it_that_others_may_write_to_is_named() {
    let folder = Folder::new();
    let file = folder.script("exit 0").program;
    for mode in [0o777, 0o775, 0o1777] {
        set_mode(folder.path(), mode);
        let refusal = refusal(file.clone());
        assert!(refusal.contains(&format!("{} others", folder.path().display())), "{refusal}");
    }
    set_mode(folder.path(), 0o755);
    std::os::unix::fs::chown(folder.path(), Some(1234), None).unwrap();
    assert!(refusal(file.clone()).contains("belongs to uid 1234"), "{}", refusal(file));
}

#[test]
fn a_symlink_is_refused_wherever_it_stands() {
    let folder = Folder::new();
    let file = folder.script("exit 0").program;
    symlink(&file, folder.at("link")).unwrap();
    symlink(folder.path(), folder.at("folder")).unwrap();
    for (path, link) in [("link", "link"), ("folder/program", "folder")] {
        let refusal = refusal(folder.at(path));
        assert!(refusal.contains(&format!("{} is a symlink", folder.at(link).display())), "{refusal}");
    }
    assert!(refusal(folder.at("folder/../program")).contains("is a symlink"));
    fs::create_dir(folder.at("real")).unwrap();
    assert!(refusal(folder.at("real/../program")).contains("contains `..`"));
}

#[test]
fn what_is_no_file_is_not_touched() {
    let folder = Folder::new();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.at("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o755),
        0,
    )
    .unwrap();
    folder.script("exit 0");
    for (path, words) in [
        (folder.at("fifo"), "is not a regular file"),
        (folder.path().to_owned(), "is a folder"),
        (folder.at("missing"), "does not exist"),
        (folder.at("program/x"), "is not a folder"),
        (PathBuf::from("/"), "is a folder"),
    ] {
        assert!(refusal(path.clone()).contains(words), "{}", refusal(path));
    }
}

#[test]
fn what_was_opened_is_what_runs() {
    let folder = Folder::new();
    let command = folder.script("echo first; exit 0");
    let opened = super::super::trust::open(&command.program).unwrap();
    fs::rename(&command.program, folder.at("old")).unwrap();
    folder.script("echo second");
    assert_eq!(rustix::fs::fstat(&opened).unwrap().st_ino, fs::metadata(folder.at("old")).unwrap().ino());
    // And a run is of what stands there now.
    let report = runtime().block_on(run(call(command, Rest::Killed)));
    assert_eq!(text(&report), "second\n");
}

#[test]
fn a_program_that_became_unsafe_since_it_was_checked_is_not_run() {
    let folder = Folder::new();
    let file = folder.script("echo > $folder/ran").program;
    trusted(&file).unwrap();
    set_mode(&file, 0o777);
    refusal(file);
    assert!(!folder.at("ran").exists());
}

#[test]
fn what_the_kernel_can_not_run_was_not_started() {
    let folder = Folder::new();
    for content in ["", "#!/no/such/interpreter\n", "neither a script nor a program\n"] {
        fs::write(folder.at("program"), content).unwrap();
        set_mode(&folder.at("program"), 0o755);
        let command = CommandLine { program: folder.at("program"), arguments: vec![] };
        let report = runtime().block_on(run(call(command, Rest::Killed)));
        assert!(matches!(report.ending, Ending::NotStarted(_)), "{content:?}: {report:?}");
    }
}

#[test]
fn a_secret_is_read_only_where_nobody_but_root_can_have_seen_or_written_it() {
    let folder = Folder::new();
    let file = folder.at("secret");
    fs::write(&file, "hidden").unwrap();
    set_mode(&file, 0o600);
    assert_eq!(secret(&file, 6).unwrap(), b"hidden");
    let refused = |path: &Path| secret(path, 6).unwrap_err().to_string();
    for (mode, words) in
        [(0o640, "(mode 0640): chmod it to 0600"), (0o604, "(mode 0604)"), (0o622, "(mode 0622)")]
    {
        set_mode(&file, mode);
        assert!(refused(&file).contains(words), "{}", refused(&file));
    }
    set_mode(&file, 0o400);
    assert!(secret(&file, 5).unwrap_err().to_string().contains("larger than 5 bytes"));
    symlink(&file, folder.at("link")).unwrap();
    assert!(refused(&folder.at("link")).contains("is a symlink"), "{}", refused(&folder.at("link")));
    assert!(refused(folder.path()).contains("is a folder"), "{}", refused(folder.path()));
    let fifo = folder.at("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    assert!(refused(&fifo).contains("is not a regular file"), "{}", refused(&fifo));
    std::os::unix::fs::chown(&file, Some(1234), None).unwrap();
    assert!(refused(&file).contains("belongs to uid 1234"), "{}", refused(&file));
    assert!(refused(&folder.at("missing")).contains("does not exist"));
}
