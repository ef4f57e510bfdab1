//! What is understood, and as what.

use super::*;

#[test]
fn global_flags_stand_before_or_after_the_verb() {
    let flags = "--config /c.toml --socket /s --state-dir /d --pin-dir /p -o json";
    for line in [format!("balancer {flags} status"), format!("balancer status {flags}")] {
        let cli = parse(&line);
        let paths = cli.paths.clone();
        assert_eq!(paths.config, PathBuf::from("/c.toml"), "{line}");
        assert_eq!(paths.socket, PathBuf::from("/s"), "{line}");
        assert_eq!(paths.state_dir, PathBuf::from("/d"), "{line}");
        assert_eq!(paths.pin_dir, PathBuf::from("/p"), "{line}");
        assert_eq!(cli.output(), Output::Json, "{line}");
    }
}

#[test]
fn paths_and_output_have_the_contracts_defaults() {
    let cli = parse("balancer status");
    assert_eq!(cli.paths.config, Path::new("/etc/balancer/balancer.toml"));
    assert_eq!(cli.paths.socket, Path::new("/run/balancer/control.sock"));
    assert_eq!(cli.paths.state_dir, Path::new("/var/lib/balancer"));
    assert_eq!(cli.paths.pin_dir, Path::new("/sys/fs/bpf/balancer"));
    assert_eq!(cli.output(), Output::Table);
    assert_eq!(cli.verb, Verb::Status(StatusArgs { pool: None, exit_code: false, watch: Watch::default() }));
}

#[test]
fn what_is_watched_is_watched_every_second_or_as_often_as_said() {
    let watch = Watch { watch: true, interval: Some(Duration::from_millis(500)) };
    let stats = parse("balancer stats --watch --interval 500ms").verb;
    assert_eq!(stats, Verb::Stats(StatsArgs { watch }));
    let status = |line: &str| parse(line).verb;
    let watch = Watch { watch: true, interval: None };
    let args = StatusArgs { pool: Some("p".to_owned()), exit_code: false, watch };
    assert_eq!(status("balancer status p --watch"), Verb::Status(args));
    for line in ["stats --interval 1s", "status --watch --exit-code", "status --watch --interval 0s"] {
        assert_eq!(refused(&format!("balancer {line}")).exit_code(), 2, "{line}");
    }
}

#[test]
fn an_import_is_of_a_program_and_a_file() {
    let imports = |line: &str| parse(line).verb;
    let plain = NginxArgs { file: "/n".into(), interfaces: vec![], vip: None, separate: false };
    assert_eq!(imports("balancer import nginx /n"), Verb::Import(Import::Nginx(plain)));
    let flags = NginxArgs {
        file: "/n".into(),
        interfaces: vec!["wan0".to_owned(), "lan0".to_owned()],
        vip: Some([203, 0, 113, 10].into()),
        separate: true,
    };
    assert_eq!(
        imports("balancer import nginx --interface wan0 /n --interface lan0 --vip 203.0.113.10 --separate"),
        Verb::Import(Import::Nginx(flags))
    );
    refused("balancer import /n");
    refused("balancer import nginx");
    refused("balancer import nginx /n --vip pw.example.org");
}

#[test]
fn each_verb_takes_its_own_flags() {
    let run = RunArgs { replace: true, detach_on_exit: true, log_format: LogFormat::Json };
    let line = "balancer run --replace --detach-on-exit --log-format json";
    assert_eq!(parse(line).verb, Verb::Run(run));
    let failover = FailoverArgs {
        pool: "p".to_owned(),
        to: Some("b".to_owned()),
        force: true,
        reset: false,
        wait: Wait::default(),
    };
    assert_eq!(parse("balancer failover p --to b --force").verb, Verb::Failover(failover));
    assert!(
        matches!(parse("balancer check --no-resolve").verb, Verb::Check(arguments) if arguments.no_resolve)
    );
    assert!(matches!(parse("balancer failback p").verb, Verb::Failback(arguments) if arguments.pool == "p"));
    let wait = Wait { no_wait: true };
    let (pool, backend) = ("p".to_owned(), "b".to_owned());
    let drain = DrainArgs {
        pool: pool.clone(),
        backend: backend.clone(),
        deadline: Some(Duration::from_secs(90)),
        force: true,
        wait,
    };
    assert_eq!(parse("balancer drain p b --deadline 1m30s --force --no-wait").verb, Verb::Drain(drain));
    let maint = MaintArgs { pool: pool.clone(), backend: backend.clone(), force: false, wait };
    assert_eq!(parse("balancer maint p b --no-wait").verb, Verb::Maint(maint));
    let ready = ReadyArgs { pool: pool.clone(), backend, wait };
    assert_eq!(parse("balancer ready p b --no-wait").verb, Verb::Ready(ready));
    let resume = ResumeArgs { pool, how: Resumption { retry: false, skip: true }, wait };
    assert_eq!(parse("balancer resume p --skip --no-wait").verb, Verb::Resume(resume));
    assert_eq!(parse("balancer detach").verb, Verb::Detach);
    assert_eq!(parse("balancer stats").verb, Verb::Stats(StatsArgs::default()));
    assert_eq!(parse("balancer flows").verb, Verb::Flows(FlowsArgs::default()));
    let flows = FlowsArgs {
        pool: Some("p".to_owned()),
        backend: Some("b".to_owned()),
        client: "2001:db8::7".parse().ok(),
        limit: Some(10),
    };
    let trace = TraceArgs {
        client: "192.0.2.7".parse().ok(),
        service: Some("passwords/web".to_owned()),
        limit: Some(9),
    };
    let line = "balancer trace --client 192.0.2.7 --service passwords/web --limit 9";
    assert_eq!(parse(line).verb, Verb::Trace(trace));
    assert_eq!(parse("balancer trace").verb, Verb::Trace(TraceArgs::default()));
    let events = EventsArgs { limit: 100, follow: false, pool: None };
    assert_eq!(parse("balancer events").verb, Verb::Events(events));
    let events = EventsArgs { limit: 0, follow: true, pool: Some("p".to_owned()) };
    assert_eq!(parse("balancer events --limit 0 --follow --pool p").verb, Verb::Events(events));
    assert_eq!(parse("balancer why p").verb, Verb::Why(WhyArgs { pool: "p".to_owned() }));
    let line = "balancer flows --pool p --backend b --client 2001:db8::7 --limit 10";
    assert_eq!(parse(line).verb, Verb::Flows(flows));
}

#[test]
fn what_is_not_understood_is_a_usage_error() {
    let lines = [
        "balancer",
        "balancer stauts",
        "balancer failover",
        "balancer failback",
        "balancer status a b",
        "balancer failover p --reste",
        "balancer drain p",
        "balancer drain p b --deadline 90",
        "balancer maint p b --deadline 90s",
        "balancer resume p",
        "balancer resume p --retry --skip",
        "balancer status -o yaml",
        "balancer status --replace",
        "balancer flows p",
        "balancer flows --client server1",
        "balancer flows --client 192.0.2.7:40000",
        "balancer flows --client 192.0.2.0/24",
        "balancer flows --limit 0",
        "balancer flows --limit all",
        "balancer events p",
        "balancer trace --client server1",
        "balancer trace --limit 0",
        "balancer events --limit 10001",
        "balancer why",
    ];
    for line in lines {
        assert_eq!(refused(line).exit_code(), 2, "{line}");
    }
}

#[test]
fn the_version_tells_layout_and_object() {
    assert_eq!(
        refused("balancer --version").to_string(),
        "balancer 0.1.0 (layout v1, object 0123456789ab)\n"
    );
    let build = Build { version: "0.1.0", layout: 1, object: None };
    assert_eq!(build.describe(), "0.1.0 (layout v1, object none)");
}

#[test]
fn help_is_no_error_and_shows_examples() {
    for line in [
        "balancer --help",
        "balancer status --help",
        "balancer events -h",
        "balancer why --help",
        "balancer failover -h",
    ] {
        let help = refused(line);
        assert_eq!(help.exit_code(), 0, "{line}");
        assert!(help.to_string().contains("Examples:"), "{help}");
    }
}
