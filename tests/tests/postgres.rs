//! docs/promotion.md's PostgreSQL, as it is written there, with two real servers: steps in their order, never two primaries
//! behind the address, and the way back.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    docs::{Document, Shell},
    folder::Folder,
    gateway::{Gateway, PATIENCE, Status, binary_under_test},
    lab::{Host, Lab, Process, Topology},
    poll::poll_until,
};
use nix::unistd::User;
use rustix::process::{Pid, Signal, kill_process};

const PORT: u16 = 5432;

/// As the document's `systemctl stop` by ssh: another machine's affair here, too, and its way of saying that it is done.
const SSH: &str = r#"
for word; do case $word in db1|db2) server=$word ;; esac; done
echo "stop $server" >> "$folder/done"
exec setpriv --reuid postgres --regid postgres --clear-groups "$(cat "$folder/bin")/pg_ctl" stop --silent -m fast -D "$folder/$server"
"#;

/// A machine without power runs no server.
const POWER_OFF: &str = r#"
echo "power off $1" >> "$folder/done"
[ -e "$folder/$1/postmaster.pid" ] || exit 0
kill -9 "$(head -n 1 "$folder/$1/postmaster.pid")" 2>/dev/null
exit 0
"#;

/// A balancer before two servers, the first of which is the primary of the second.
struct Stand {
    gateway: Gateway,
    shell: Shell,
    folder: Folder,
    bin: PathBuf,
    servers: [Option<Process>; 2],
    lab: Lab,
}

impl Stand {
    fn start(label: &str) -> Result<Self> {
        let lab = Lab::new(label, &Topology::two_armed())?;
        let folder = Folder::new()?;
        let document = Document::read("docs/promotion.md")?;
        let own = |text: &str| text.replace("/etc/balancer/", &folder.at("").display().to_string());
        // A busy machine starts programs late, and nobody waits for half a minute here.
        let configuration = document.block_after("are all of it.")?;
        let configuration = own(&configuration)
            .replace("\ntimeout = \"1s\"", "\ntimeout = \"10s\"")
            .replace("fail_timeout = \"30s\"", "fail_timeout = \"5s\"");
        let gateway = Gateway::new(&lab, &binary_under_test()?, &configuration)?;
        for place in ["hooks", "probes"] {
            fs::create_dir(folder.at(place))?;
        }
        for script in ["probes/postgres", "hooks/fence", "hooks/promote"] {
            let text = document.block_after(&format!("`/etc/balancer/{script}`"))?;
            let ssh = format!("{} -o", folder.at("ssh").display());
            executable(&folder.at(script), &own(&text).replace("ssh -o", &ssh))?;
        }
        fs::write(
            folder.at("pg_service.conf"),
            document.block_after("`/etc/balancer/pg_service.conf` says")?,
        )?;
        folder.script("ssh", SSH)?;
        fs::rename(folder.script("power-off", POWER_OFF)?, folder.at("hooks/power-off"))?;
        // Servers are another user's, and their folders are in this one.
        fs::set_permissions(folder.at(""), fs::Permissions::from_mode(0o755))?;
        let bin = bin()?;
        fs::write(folder.at("bin"), bin.display().to_string())?;
        let shell = Shell::new(&lab, &gateway, &binary_under_test()?)?;
        let mut stand = Self { gateway, shell, folder, bin, servers: [None, None], lab };
        stand.make_servers()?;
        Ok(stand)
    }

    fn make_servers(&mut self) -> Result<()> {
        let postgres = User::from_name("postgres")?.context("a user postgres")?;
        for server in ["db1", "db2"] {
            let folder = self.folder.at(server);
            fs::create_dir(&folder)?;
            chown(&folder, Some(postgres.uid.as_raw()), Some(postgres.gid.as_raw()))?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        }
        let (first, second) = (self.folder.at("db1"), self.folder.at("db2"));
        self.as_postgres(0, "initdb", &["--no-sync", "--auth=trust", "-D", &first.display().to_string()])?;
        let access = "host all all 10.0.2.0/24 trust\nhost replication all 10.0.2.0/24 trust\n";
        fs::write(first.join("pg_hba.conf"), access)?;
        self.serve(0)?;
        self.ask(self.lab.gateway(), self.address(0), "postgres", "create table notes (note text)")?;
        // As the document says.
        for words in ["create role balancer login", "grant execute on function pg_promote to balancer"] {
            self.ask(self.lab.gateway(), self.address(0), "postgres", words)?;
        }
        let (from, to) = (self.lab.backend(0).address().to_string(), second.display().to_string());
        self.as_postgres(1, "pg_basebackup", &["-h", &from, "-D", &to, "-R", "--no-sync", "-c", "fast"])?;
        self.serve(1)
    }

    /// Starts a server, and waits until it answers.
    fn serve(&mut self, server: usize) -> Result<()> {
        let folder = self.data(server).display().to_string();
        let listen = format!("listen_addresses={}", self.lab.backend(server).address());
        let arguments = ["-D", &folder, "-c", &listen, "-c", "unix_socket_directories=", "-c", "fsync=off"];
        let words = self.words("postgres", &arguments);
        self.servers[server] = Some(self.lab.backend(server).spawn(words)?);
        let address = self.address(server);
        poll_until(PATIENCE, "a server that answers", || {
            self.ask(self.lab.gateway(), address, "postgres", "select 1")
        })
        .map(drop)
    }

    fn data(&self, server: usize) -> PathBuf {
        self.folder.at(&name(server))
    }

    fn address(&self, server: usize) -> SocketAddr {
        SocketAddr::new(self.lab.backend(server).address(), PORT)
    }

    fn words(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let mut words: Vec<_> = "setpriv --reuid postgres --regid postgres --clear-groups"
            .split(' ')
            .map(str::to_owned)
            .collect();
        words.push(self.bin.join(program).display().to_string());
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        words
    }

    fn as_postgres(&self, server: usize, program: &str, arguments: &[&str]) -> Result<()> {
        self.lab.backend(server).run(self.words(program, arguments)).map(drop)
    }

    /// What psql on this host says to this; one row, its columns by `|`.
    fn ask(&self, host: &Host, address: SocketAddr, user: &str, sql: &str) -> Result<String> {
        let target = format!("host={} port={} user={user} dbname=postgres", address.ip(), address.port());
        let said = host.run(["psql", &target, "-XAtqc", sql])?;
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }

    /// What a client hears at the virtual address.
    fn client(&self, sql: &str) -> Result<String> {
        self.ask(self.lab.client(), SocketAddr::new(self.lab.vip(), PORT), "postgres", sql)
    }

    /// Kills a server as a broken machine does.
    fn crash(&mut self, server: usize) -> Result<()> {
        let pid = fs::read_to_string(self.data(server).join("postmaster.pid"))?;
        let pid = pid.lines().next().context("a process id")?.parse()?;
        kill_process(Pid::from_raw(pid).context("not 0")?, Signal::KILL)?;
        self.servers[server] = None;
        Ok(())
    }

    fn wait_until_all_are_up(&self) -> Result<Status> {
        self.gateway.wait_until("all to be up", Status::are_all_up)
    }

    /// Standbys have all that the primary has.
    fn wait_until_it_is_replicated(&self, primary: usize) -> Result<()> {
        let address = self.address(primary);
        let sql = "select count(*) from pg_stat_replication where replay_lsn = pg_current_wal_lsn()";
        poll_until(PATIENCE, "a standby that has everything", || {
            match self.ask(self.lab.gateway(), address, "postgres", sql) {
                Ok(count) if count == "1" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
    }

    /// Makes a server that has ended in order a standby of the other one.
    fn follow(&mut self, server: usize) -> Result<()> {
        let folder = self.data(server);
        fs::write(folder.join("standby.signal"), "")?;
        let primary = self.lab.backend(1 - server).address();
        let own = format!("primary_conninfo = 'host={primary} user=postgres'\n");
        fs::write(folder.join("postgresql.auto.conf"), own)?;
        self.serve(server)
    }
}

fn name(server: usize) -> String {
    format!("db{}", server + 1)
}

fn executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Where the servers' programs are: Debian keeps versions side by side.
fn bin() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("PostgreSQL's programs: cargo xtask setup")?;
    let bins = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let newest = bins.filter(|bin| bin.join("postgres").is_file()).max();
    newest.context("a PostgreSQL server: cargo xtask setup")
}

#[test]
fn the_standby_is_promoted_before_it_is_used_and_the_old_primary_is_not_used_again() -> Result<()> {
    let mut stand = Stand::start("postgres")?;
    stand.gateway.start(&[])?;
    let status = stand.wait_until_all_are_up()?;
    assert_eq!(status.active(), "db1");
    stand.client("insert into notes values ('before')")?;
    stand.wait_until_it_is_replicated(0)?;

    // A client that comes while nobody serves waits, and writes to the new primary.
    stand.crash(0)?;
    stand.gateway.wait_until("the steps", |status| status.pool()["state"] == "switching")?;
    let waited =
        thread::scope(|scope| scope.spawn(|| stand.client("insert into notes values ('meanwhile')")).join());
    waited.expect("no panic")?;
    let status = stand.gateway.wait_until("db2", |status| status.active() == "db2")?;
    assert_eq!(status.pool()["reason"], "backend_down", "{status}");
    assert_eq!(stand.client("select string_agg(note, ' ' order by note) from notes")?, "before meanwhile");
    assert_eq!(stand.folder.lines("done"), ["stop db1", "power off db1"]);
    // What the document has a reader type then.
    for command in Document::read("docs/promotion.md")?.commands() {
        let said = stand.shell.run(&command, &[0])?;
        ensure!(said.stdout.contains("db2"), "`{command}`: {said:?}");
    }

    // It comes back, and takes itself for the primary: nobody is led there.
    stand.serve(0)?;
    let status = stand.gateway.wait_until("its reason", |status| {
        status.is("db1", "down") && status.reason("db1").contains("pg_is_in_recovery() is f")
    })?;
    assert_eq!(status.active(), "db2");
    let refused = stand.shell.run("balancer failover database --to db1", &[1])?;
    ensure!(refused.stderr.contains("--force"), "{refused:?}");
    assert_eq!(stand.client("select count(*) from notes")?, "2");
    Ok(())
}

#[test]
fn a_planned_change_goes_there_and_back_and_loses_nothing() -> Result<()> {
    let mut stand = Stand::start("postgres_way")?;
    stand.gateway.start(&[])?;
    stand.wait_until_all_are_up()?;
    for (from, verb) in [(0, "failover"), (1, "failback")] {
        stand.client(&format!("insert into notes values ('{verb}')"))?;
        stand.shell.run(&format!("balancer {verb} database"), &[0])?;
        assert_eq!(stand.gateway.status()?.active(), name(1 - from));
        stand.servers[from] = None;
        stand.follow(from)?;
        stand.wait_until_all_are_up()?;
    }
    assert_eq!(stand.client("select string_agg(note, ' ' order by note) from notes")?, "failback failover");
    assert_eq!(stand.folder.lines("done"), ["stop db1", "stop db2"]);
    Ok(())
}

/// As a second gateway does that gets the address, and as the first start of all does.
#[test]
fn a_gateway_that_knows_nothing_finds_the_primary_though_it_comes_second() -> Result<()> {
    let mut stand = Stand::start("postgres_first")?;
    stand.gateway.start(&[])?;
    stand.wait_until_all_are_up()?;
    stand.shell.run("balancer failover database", &[0])?;
    stand.servers[0] = None;
    stand.follow(0)?;
    let steps = stand.folder.lines("done");

    stand.gateway.terminate()?;
    stand.shell.run("balancer detach; rm -f \"$BALANCER_STATE_DIR/state.json\"", &[0])?;
    stand.gateway.start(&[])?;
    let status = stand.wait_until_all_are_up()?;
    assert_eq!((status.active(), &status.pool()["reason"]), ("db2", &"initial".into()), "{status}");
    assert_eq!(stand.folder.lines("done"), steps, "no step is taken at a first start");
    stand.client("insert into notes values ('written')").map(drop)
}
