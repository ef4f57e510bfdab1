//! The documents, run: every command that they have a reader type, in the order in which they do, on a gateway with the
//! README's own configuration.
//!
//! Elsewhere: the PostgreSQL of docs/promotion.md (`postgres.rs`), and what systemd does (`unit.rs`).

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, bail, ensure};
use balancer_tests::{
    docs::{Document, Shell, root},
    gateway::PATIENCE,
    lab::Topology,
    poll::poll_until,
    site::{Options, Programs, Site},
};

/// Documents whose commands are run elsewhere.
const ELSEWHERE: [&str; 1] = ["docs/promotion.md"];

/// What is run by hand because of the time it takes; tests run it in short.
const BY_HAND: [&str; 3] = ["cargo xtask soak", "cargo xtask bench probes", "cargo xtask vm 6.18 7"];

/// Commands that aren't typed on the gateway, with the test and the words in it that run them.
const IN_TESTS: [(&str, &str, &str); 2] = [
    ("systemctl restart balancer", "unit.rs", "\"systemctl\", \"restart\", SERVICE"),
    ("balancer top", "top.rs", "\"top\""),
];

/// A site with the README's first configuration. The servers' certificates are the lab's, and so are their roots.
fn site(label: &str) -> Result<(Site, Shell)> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare(label, &Topology::two_armed(), Options::default(), &programs)?;
    let text = Document::read("README.md")?.block_after("## A first real configuration")?;
    let text = text.replace("[pool.probe]", &format!("[pool.probe]\nca_file = {:?}", site.ca_file()));
    site.gateway.configure(&text)?;
    (0..2).try_for_each(|server| site.serve(server))?;
    let shell = Shell::new(site.lab(), &site.gateway, &programs.balancer)?;
    Ok((site, shell))
}

/// Runs the document's commands, on a gateway where the daemon runs unless it is the document that starts it.
fn run(label: &str, name: &str) -> Result<()> {
    let document = Document::read(name)?;
    let commands = document.commands();
    ensure!(!commands.is_empty(), "{name} has no commands");
    let (mut site, shell) = site(label)?;
    let nginx = Document::read("docs/coming-from.md")?.block_after("is on stderr, too. From")?;
    fs::write(shell.folder().join("nginx.conf"), nginx)?;
    if !commands.iter().any(|line| line == "balancer run") {
        start(&mut site)?;
    }
    for line in &commands {
        type_in(line, &mut site, &shell).with_context(|| format!("{name}: `{line}`"))?;
    }
    Ok(())
}

fn start(site: &mut Site) -> Result<()> {
    site.gateway.start(&[])?;
    site.gateway.wait_until("all to be up", balancer_tests::gateway::Status::are_all_up).map(drop)
}

fn type_in(line: &str, site: &mut Site, shell: &Shell) -> Result<()> {
    match line {
        _ if line.starts_with("cargo xtask") => is_run_by_ci(line),
        _ if IN_TESTS.iter().any(|(command, ..)| *command == line) => is_run_by_a_test(line),
        "balancer run" => start(site),
        _ if line.starts_with("balancer trace") => {
            let process = shell.start(line)?;
            poll_until(PATIENCE, "a trace", || match process.stderr() {
                said if said.contains("packets are shown as they come") => Ok(()),
                said => Err(said),
            })
        }
        "balancer events --follow" => {
            let process = shell.start(line)?;
            poll_until(PATIENCE, "an event", || match process.stdout() {
                said if said.contains("started") => Ok(()),
                said => Err(said + &process.stderr()),
            })
        }
        "balancer detach" => {
            site.gateway.terminate()?;
            shell.run(line, &[0]).map(drop)
        }
        // What it finds on a machine is that machine's.
        "balancer doctor" => shell.run(line, &[0, 1]).map(drop),
        // Nothing is held.
        "balancer resume passwords --retry" => {
            let said = shell.run(line, &[1])?;
            ensure!(said.stderr.contains("passwords"), "{said:?}");
            Ok(())
        }
        _ => {
            let line = line.replace("/etc/nginx/nginx.conf", "nginx.conf").replace(" FILE", " nginx.conf");
            let line = line.replace("/etc/balancer/", "./");
            shell.run(&line, &[0]).map(drop)
        }
    }
}

fn is_run_by_ci(line: &str) -> Result<()> {
    let script = fs::read_to_string(root().join(".ci/run"))?;
    // Of `cargo xtask build` and the like, which others need first, the verb is enough.
    let needed = ["cargo xtask build", "cargo xtask deb"];
    let is_run = script.lines().any(|run| run == line || run.strip_suffix(" --quick") == Some(line));
    if is_run || BY_HAND.contains(&line) || needed.contains(&line) {
        return Ok(());
    }
    bail!("neither in .ci/run nor said to be run by hand")
}

fn is_run_by_a_test(line: &str) -> Result<()> {
    let (_, test, words) =
        IN_TESTS.iter().find(|(command, ..)| *command == line).context("no such command")?;
    let source = fs::read_to_string(root().join("tests/tests").join(test))?;
    ensure!(source.contains(words), "{test} doesn't run it any more");
    Ok(())
}

#[test]
fn the_readme_works_as_it_is_written() -> Result<()> {
    run("docs_readme", "README.md")
}

#[test]
fn operating_works_as_it_is_written() -> Result<()> {
    run("docs_operating", "docs/operating.md")
}

#[test]
fn coming_from_nginx_works_as_it_is_written() -> Result<()> {
    run("docs_coming", "docs/coming-from.md")
}

#[test]
fn watching_works_as_it_is_written() -> Result<()> {
    run("docs_monitoring", "docs/monitoring.md")
}

#[test]
fn developing_works_as_it_is_written() -> Result<()> {
    run("docs_development", "docs/development.md")
}

#[test]
fn no_document_with_commands_is_forgotten() -> Result<()> {
    let source = fs::read_to_string(root().join("tests/tests/docs.rs"))?;
    for document in Document::all()? {
        let is_run = source.contains(&format!("\", \"{}\")", document.name));
        let is_known = is_run || ELSEWHERE.contains(&document.name.as_str());
        ensure!(document.commands().is_empty() || is_known, "{}: {:?}", document.name, document.commands());
    }
    Ok(())
}

#[test]
fn scripts_are_ones_that_a_shell_can_read() -> Result<()> {
    for document in Document::all()? {
        for script in document.blocks().into_iter().filter(|block| block.language == "sh") {
            let done = std::process::Command::new("sh").args(["-n", "-c", &script.text]).output()?;
            ensure!(done.status.success(), "{}: {done:?} {}", document.name, script.text);
        }
    }
    Ok(())
}

#[test]
fn links_lead_somewhere() -> Result<()> {
    let documents = Document::all()?;
    let anchors = |document: &Document| -> BTreeSet<String> {
        document.text.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
    };
    let mut links = 0;
    for document in &documents {
        let folder = document.name.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in document.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, at)| (file, Some(at)));
            let path =
                if file.is_empty() { root().join(&document.name) } else { root().join(folder).join(file) };
            let path = path.canonicalize().with_context(|| format!("{}: {link}", document.name))?;
            if let Some(heading) = heading {
                let other = documents
                    .iter()
                    .find(|other| root().join(&other.name).canonicalize().ok() == Some(path.clone()));
                let other = other.with_context(|| format!("{}: {link} is no document", document.name))?;
                ensure!(anchors(other).contains(heading), "{}: {link}: {:?}", document.name, anchors(other));
            }
            links += 1;
        }
    }
    ensure!(links > 10, "{links} links");
    Ok(())
}

/// As the forges make it of a heading.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
