//! The dashboard in a real browser, on the gateway itself: it shows what is, as soon as it is so, does what it is told by who may,
//! and never passes off old news as new.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    browser::Browser,
    folder::Folder,
    gateway::PATIENCE,
    lab::Topology,
    poll::poll_until,
    site::{Options, Programs, Site, WEB},
};
use balancer_user::dataplane::layout_version;
use rustix::{
    net::{AddressFamily, SocketType, bind, connect, socket},
    process::Signal,
};
use serde_json::json;

const LISTEN: &str = "127.0.0.1:9464";
const PAGE: &str = "http://127.0.0.1:9464/";
const SECRET: &str = "correct-horse-battery-staple";
/// For a failover to be seen.
const AT_ONCE: Duration = Duration::from_secs(1);
/// For the page to be there, with what it shows.
const FIRST_PAINT_MS: f64 = 300.0;
/// Of the page, with all that is in it.
const PAGE_BYTES: usize = 150_000;
/// One more than a browser has connections to one address.
const TABS: usize = 7;
/// Dashboards that are open at once, what they may cost of a processor, and for how long that is looked at.
const OPEN: usize = 50;
/// Where their viewers are, as one address has half the places at most.
const VIEWERS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];
const COST: f64 = 0.05;
const LOOKED_AT: Duration = Duration::from_secs(10);

/// A site with a dashboard, after `[http] listen` also with `http`, and with `more` behind.
fn site(label: &str, http: &str, more: &str) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare(label, &Topology::two_armed(), Options::default(), &programs)?;
    let text = site.configuration(Options::default());
    site.gateway.configure(&format!("{text}{more}\n[http]\nlisten = \"{LISTEN}\"\n{http}\n"))?;
    site.begin()?;
    Ok(site)
}

fn with_token(label: &str, folder: &Folder) -> Result<Site> {
    let file = folder.at("token");
    fs::write(&file, SECRET)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    site(label, &format!("token_file = {file:?}"), "")
}

fn browser(site: &Site) -> Result<Browser> {
    Browser::start(site.lab(), site.lab().gateway())
}

/// An expression: whether the LED of this server is the one that is lit.
fn is_lit(server: &str) -> String {
    format!(
        "[...document.querySelectorAll('[data-serving=true]')].map(row => row.dataset.backend).join() === '{server}'"
    )
}

/// The page of the dashboard, as it is sent.
fn page(site: &Site) -> Result<String> {
    ask(site, LISTEN, "GET / HTTP/1.1\r\nHost: HERE\r\n\r\n")
}

/// What is answered at this address.
fn ask(site: &Site, address: &str, request: &str) -> Result<String> {
    let ask = || -> Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.replace("HERE", address).as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    site.lab().gateway().enter(ask)?
}

#[test]
fn the_led_moves_within_a_second_of_a_failover_and_nothing_is_complained_of() -> Result<()> {
    let mut site = site("dashboard", "", "")?;
    let browser = browser(&site)?;
    let sent = page(&site)?;
    ensure!(sent.starts_with("HTTP/1.1 200") && sent.len() < PAGE_BYTES, "{} bytes", sent.len());
    let mut paints = Vec::new();
    for _ in 0..5 {
        browser.open(PAGE)?;
        browser
            .wait_until("a first paint", "performance.getEntriesByName('first-contentful-paint').length")?;
        let paint =
            browser.run("return performance.getEntriesByName('first-contentful-paint')[0].startTime")?;
        paints.push(paint.as_f64().context("a time")?);
        // What it was sent with is drawn by then.
        ensure!(browser.run(&format!("return {}", is_lit("server1")))? == true);
    }
    // A busy machine takes its time, but not each time.
    ensure!(paints.iter().any(|paint| *paint < FIRST_PAINT_MS), "first paints after {paints:?} ms");
    eprintln!("first paints after {paints:?} ms, {} bytes", sent.len());

    browser.wait_until("news", "document.querySelector('#live').textContent === 'live'")?;
    browser.run(
        "new MutationObserver(() => { if (document.querySelector('[data-backend=server2]').dataset.serving === 'true') \
         window.seen ??= Date.now(); }).observe(document.querySelector('#pools'), { subtree: true, attributes: true })",
    )?;
    site.kill(0);
    browser.wait_until("server2 to be lit", "window.seen")?;
    let seen = browser.run("return window.seen")?.as_u64().context("a time")?;
    let seen = UNIX_EPOCH + Duration::from_millis(seen);
    let took = seen.duration_since(site.gateway.moved_to("server2")?).unwrap_or_default();
    eprintln!("the LED moved {took:?} after the decision");
    ensure!(took < AT_ONCE, "the LED moved {took:?} after the decision");
    browser.wait_until("server2 alone to be lit", &is_lit("server2"))?;
    let text = browser.text()?;
    for words in ["server1 → server2", "refused", "backend down", "▼ down"] {
        ensure!(text.contains(words), "{words} in {text}");
    }
    ensure!(browser.console()?.is_empty(), "{:?}", browser.console()?);
    Ok(())
}

#[test]
fn a_reload_takes_it_elsewhere_gives_it_another_token_and_turns_it_off_and_on() -> Result<()> {
    const ELSEWHERE: &str = "127.0.0.1:9465";
    const TAKEN: &str = "127.0.0.1:9466";
    let folder = Folder::new()?;
    let site = site("dashmoves", "", "")?;
    let here = fs::read_to_string(site.gateway.configuration())?;
    let answers = |address: &str| ask(&site, address, "GET /metrics HTTP/1.1\r\nHost: HERE\r\n\r\n");
    let is_gone = |address: &str| {
        poll_until(PATIENCE, "nobody to answer there", || match answers(address) {
            Err(_) => Ok(()),
            Ok(said) => Err(said),
        })
    };
    let said = site.gateway.reload(&here.replace(LISTEN, ELSEWHERE))?;
    ensure!(said[1] == format!("http: listen {LISTEN} -> {ELSEWHERE}"), "{said:?}");
    ensure!(answers(ELSEWHERE)?.starts_with("HTTP/1.1 200"));
    is_gone(LISTEN)?;

    let shows = |token: &str| -> Result<String> {
        let head =
            format!("X-Balancer-Dashboard: 1\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n");
        let said = ask(&site, ELSEWHERE, &format!("POST /v1/token HTTP/1.1\r\nHost: HERE\r\n{head}"))?;
        Ok(said.split(' ').nth(1).unwrap_or_default().to_owned())
    };
    ensure!(shows(SECRET)? == "403");
    let file = folder.at("token");
    let acts = here.replace(LISTEN, ELSEWHERE) + &format!("token_file = {file:?}\n");
    for (token, told) in [
        (SECRET, "http: token_file none -> "),
        ("another-secret-of-some-length", "http: the token in token_file"),
    ] {
        fs::write(&file, token)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let said = site.gateway.reload(&acts)?;
        ensure!(said.len() == 2 && said[1].starts_with(told), "{said:?}");
        ensure!(shows(token)? == "204" && shows("some-other-secret-which-is-wrong")? == "401");
    }

    let _somebody = site.lab().gateway().enter(|| TcpListener::bind(TAKEN))??;
    site.gateway.configure(&here.replace(LISTEN, TAKEN))?;
    let said = site.gateway.verb(&["reload"])?.expect(1)?;
    ensure!(said.stderr.contains(&format!("[http] listen: {TAKEN}: ")), "{said:?}");
    ensure!(shows("another-secret-of-some-length")? == "204", "nothing has changed");
    let status = site.gateway.status()?;
    ensure!(status.0["daemon"]["config_generation"] == 4 && status.0["pending"] == json!([]), "{status}");

    let off = here.split("\n[http]").next().context("the configuration")?;
    site.gateway.reload(off)?;
    is_gone(ELSEWHERE)?;
    site.gateway.reload(&here)?;
    ensure!(answers(LISTEN)?.starts_with("HTTP/1.1 200"));
    ensure!(site.load(WEB, &["--connections", "5"])?["failed"] == 0);
    Ok(())
}

#[test]
fn beside_traffic_a_start_goes_on_without_an_address_that_somebody_has_and_takes_it_when_it_is_free()
-> Result<()> {
    let mut site = site("dashtaken", "", "")?;
    let somebody = |site: &Site| site.lab().gateway().enter(|| TcpListener::bind(LISTEN))?.context("listen");
    for arguments in [&[][..], &["--replace"]] {
        site.gateway.kill();
        if !arguments.is_empty() {
            // What carries the traffic is another layout's.
            let pins = site.lab().pin_dir();
            fs::rename(pins.join(layout_version()), pins.join("v3"))?;
        }
        let first = somebody(&site)?;
        site.gateway.start(arguments)?;
        let status = site.gateway.status()?;
        let degraded = status.0["degraded"].to_string();
        ensure!(degraded.contains(&format!("[http] listen {LISTEN}: nobody answers there")), "{status}");
        ensure!(site.load(WEB, &["--connections", "20"])?["failed"] == 0);
        drop(first);
        site.gateway.wait_until("it to have its address", |status| status.0["degraded"] == json!([]))?;
        ensure!(page(&site)?.starts_with("HTTP/1.1 200"));
    }

    // Where nothing is lost by it, whoever starts it is told.
    site.gateway.kill();
    site.gateway.verb(&["detach"])?.expect(0)?;
    let _second = somebody(&site)?;
    let said = site.gateway.verb(&["run"])?.expect(1)?;
    ensure!(said.stderr.contains(&format!("[http] listen: {LISTEN}: ")), "{said:?}");
    ensure!(!site.lab().pin_dir().exists(), "nothing is left");
    Ok(())
}

#[test]
fn without_a_token_it_shows_no_client_and_does_nothing() -> Result<()> {
    let site = site("dashlooks", "", "")?;
    ensure!(site.load(WEB, &["--connections", "5"])?["failed"] == 0);
    let _held = site.hold(balancer_tests::site::PASSWORDS, WEB)?;
    let browser = browser(&site)?;
    browser.open(PAGE)?;
    browser.wait_until(
        "a connection",
        "document.querySelector('.serving .flows').textContent.startsWith('1')",
    )?;
    let (text, sent) = (browser.text()?, page(&site)?);
    let client = site.lab().client().address().to_string();
    ensure!(!text.contains(&client) && !sent.contains(&client), "{text}");
    let buttons = "[...document.querySelectorAll('button')].filter(button => button.offsetParent).length";
    ensure!(browser.run(&format!("return {buttons}"))? == 0, "{text}");
    let post = "return fetch('/v1/failover', { method: 'POST', body: '{\"pool\":\"passwords\"}', headers: { \
                'Content-Type': 'application/json', 'X-Balancer-Dashboard': '1', 'Authorization': 'Bearer x' } }) \
                .then(answer => answer.status)";
    ensure!(browser.run(post)? == 403);
    ensure!(site.gateway.status()?.active() == "server1");
    Ok(())
}

/// Fills the dialog in, by its fields' names, and sends it.
fn answer(browser: &Browser, fields: &[(&str, &str)]) -> Result<()> {
    for (name, value) in fields {
        browser.run(&format!("document.querySelector('#ask [name={name}]').value = {}", json!(value)))?;
    }
    browser.run("document.querySelector('#ask button.main').click()").map(drop)
}

fn click(browser: &Browser, button: &str) -> Result<()> {
    browser.run(&format!("document.querySelector('{button}').click()")).map(drop)
}

#[test]
fn with_the_token_a_command_is_confirmed_done_and_told() -> Result<()> {
    let folder = Folder::new()?;
    let site = with_token("dashacts", &folder)?;
    let browser = browser(&site)?;
    browser.open(PAGE)?;
    browser.be_a_phone(true)?;
    for state in ["looking", "acting"] {
        browser.wait_until("news", "document.querySelector('#live').textContent === 'live'")?;
        let wide = browser
            .run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")?;
        ensure!(wide[0].as_u64() <= wide[1].as_u64(), "{state}, it is wider than a phone: {wide}");
        if state == "looking" {
            click(&browser, "#sign")?;
            answer(&browser, &[("token", "a-wrong-one-of-some-length")])?;
            browser.wait_until(
                "a refusal",
                "document.querySelector('#ask .wrong').textContent.includes('not the token')",
            )?;
            answer(&browser, &[("token", SECRET)])?;
            browser.wait_until("the dialog to go", "!document.querySelector('#ask').open")?;
        }
    }
    browser.be_a_phone(false)?;

    click(&browser, "[data-backend=server2] [data-do=failover]")?;
    let asked = browser.run("return document.querySelector('#ask').innerText")?.to_string();
    ensure!(asked.contains("New connections of passwords go to server2 instead of server1"), "{asked}");
    ensure!(site.gateway.status()?.active() == "server1", "nothing is done before it is confirmed");
    answer(&browser, &[])?;
    browser.wait_until("server2 to be lit", &is_lit("server2"))?;
    ensure!(site.gateway.status()?.active() == "server2");
    let events = site.gateway.verb(&["events"])?.expect(0)?.stdout;
    ensure!(events.contains("`failover passwords --to server2` by http from 127.0.0.1:"), "{events}");
    browser.wait_until("who did it", "document.body.innerText.includes('by http from (an address)')")?;

    for (verb, admin) in [("drain", "drain"), ("maint", "maint"), ("ready", "ready")] {
        click(&browser, &format!("[data-backend=server1] [data-do={verb}]"))?;
        answer(&browser, &[])?;
        site.gateway.wait_until(admin, |status| status.backend("server1")["admin"] == admin)?;
        browser.wait_until(admin, "!document.querySelector('#ask').open")?;
    }
    click(&browser, "[data-do=failback]")?;
    answer(&browser, &[])?;
    browser.wait_until("server1 to be lit", &is_lit("server1"))?;

    // A reload takes the token away and gives it back: the page that is open has its buttons accordingly.
    let acts = fs::read_to_string(site.gateway.configuration())?;
    let looks: String = acts.split_inclusive('\n').filter(|line| !line.starts_with("token_file")).collect();
    let buttons = "[...document.querySelectorAll('button')].filter(button => button.offsetParent).length";
    for (text, wanted) in [(looks, "=== 0"), (acts, "> 1")] {
        site.gateway.reload(&text)?;
        browser.wait_until("the buttons to be right", &format!("{buttons} {wanted}"))?;
    }
    // The refusal of the wrong token is the browser's own line about it.
    let lines = browser.console()?;
    ensure!(lines.len() == 1 && lines[0].to_string().contains("401"), "{lines:?}");
    Ok(())
}

#[test]
fn old_news_are_told_to_be_old_and_a_daemon_that_comes_back_is_found() -> Result<()> {
    let mut site = site("dashstale", "", "")?;
    let browser = browser(&site)?;
    browser.open(PAGE)?;
    let is_live = "!document.querySelector('#stale').offsetParent && \
                   document.querySelector('#live').textContent === 'live'";
    let says = |words: &str| format!("document.querySelector('#stale').innerText.includes('{words}')");
    browser.wait_until("news", is_live)?;
    site.gateway.signal(Signal::STOP)?;
    browser.wait_until("to be told that it is silent", &says("the daemon says nothing"))?;
    ensure!(browser.run("return getComputedStyle(document.querySelector('main')).filter")? == "grayscale(1)");
    site.gateway.signal(Signal::CONT)?;
    browser.wait_until("news again", is_live)?;
    site.gateway.kill();
    browser.wait_until("to be told that it is gone", &says("can\\'t be reached"))?;
    site.gateway.start(&[])?;
    browser.wait_until("news of another daemon", is_live)?;
    browser.wait_until("that it has started", "document.body.innerText.includes('took over what was pinned')")
}

#[test]
fn more_tabs_than_a_browser_has_connections_are_live_when_they_are_looked_at() -> Result<()> {
    let site = site("dashtabs", "", "")?;
    let browser = browser(&site)?;
    let is_live = "!document.hidden && document.querySelector('#live').textContent === 'live'";
    let first = browser.tab()?;
    browser.open(PAGE)?;
    browser.wait_until("news", is_live)?;
    browser.run("document.addEventListener('visibilitychange', () => { window.title = document.title; })")?;
    for number in 2..=TABS {
        browser.open_tab()?;
        browser.open(PAGE)?;
        browser.wait_until(&format!("news in tab {number}"), is_live)?;
    }
    site.gateway.verb(&["failover", "passwords"])?.expect(0)?;
    browser.look_at(&first)?;
    ensure!(browser.run("return window.title")?.as_str().is_some_and(|title| title.starts_with("paused")));
    browser.wait_until("news in the first tab", is_live)?;
    browser.wait_until("server2 to be lit", &is_lit("server2"))?;
    ensure!(browser.run("return document.title")? == "● server2 – balancer");
    ensure!(browser.run("return document.querySelector('#stale').offsetParent === null")? == true);
    ensure!(browser.console()?.is_empty(), "{:?}", browser.console()?);
    Ok(())
}

#[test]
fn what_hooks_and_their_names_say_is_text() -> Result<()> {
    let folder = Folder::new()?;
    let hostile = "<img src=x onerror=window.taken=1></script><script>window.taken=1</script>";
    let hook = folder.script("hook", &format!("echo '{hostile}'; exit 3"))?;
    let more = format!("\n[[pool.hook]]\nname = \"{hostile}\"\nwhen = \"after\"\nrun = [{hook:?}]\n");
    let site = site("dashhostile", "", &more)?;
    let browser = browser(&site)?;
    browser.open(PAGE)?;
    browser.wait_until("news", "document.querySelector('#live').textContent === 'live'")?;
    site.gateway.verb(&["failover", "passwords"])?;
    // As it happens, and as it is sent with the page.
    for _ in 0..2 {
        browser
            .wait_until("the hook's end", &format!("document.body.innerText.includes({})", json!(hostile)))?;
        ensure!(browser.run("return window.taken === undefined && !document.querySelector('img')")? == true);
        browser.open(PAGE)?;
    }
    ensure!(browser.console()?.is_empty(), "{:?}", browser.console()?);
    Ok(())
}

/// Of all its threads, in ticks of which there are a hundred a second.
fn processor_time(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(") ").next().context("a process's numbers")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<u64>);
    let (user, system) = (times.next().context("user time")??, times.next().context("system time")??);
    Ok(user + system)
}

/// A connection to the dashboard from this address.
fn connect_from(address: Ipv4Addr) -> Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddrV4::new(address, 0))?;
    connect(&socket, &LISTEN.parse::<SocketAddrV4>()?)?;
    Ok(TcpStream::from(socket))
}

#[test]
fn fifty_open_dashboards_cost_little_and_leave_nothing_behind() -> Result<()> {
    let site = site("dashmany", "", "")?;
    let pid = site.gateway.pid()?;
    let cost = |what: &str| -> Result<f64> {
        let (before, begun) = (processor_time(pid)?, SystemTime::now());
        thread::sleep(LOOKED_AT);
        let took = begun.elapsed()?.as_secs_f64();
        let cost = (processor_time(pid)? - before) as f64 / 100.0 / took;
        eprintln!("{what}: {:.1} % of a processor", cost * 100.0);
        Ok(cost)
    };
    let descriptors = || -> Result<usize> { Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count()) };
    let alone = cost("no dashboard")?;
    let without = descriptors()?;
    let open = || -> Result<Vec<TcpStream>> {
        let request = format!("GET /events HTTP/1.1\r\nHost: {LISTEN}\r\n\r\n");
        let streams = (0..OPEN).map(|number| {
            let mut stream = connect_from(VIEWERS[number % VIEWERS.len()])?;
            stream.write_all(request.as_bytes())?;
            Ok(stream)
        });
        streams.collect()
    };
    let streams = site.lab().gateway().enter(open)??;
    let many = thread::scope(|scope| {
        for mut stream in &streams {
            scope.spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
        let many = cost("fifty dashboards");
        streams.iter().for_each(|stream| drop(stream.shutdown(std::net::Shutdown::Both)));
        many
    })?;
    ensure!(many - alone < COST, "{many} beside {alone}");

    // Probes have a few at times, and had then.
    poll_until(PATIENCE, "all of them to be gone", || match descriptors() {
        Ok(open) if open < without + OPEN / 2 => Ok(()),
        Ok(open) => Err(format!("{open} descriptors, {without} before")),
        Err(error) => Err(format!("{error:#}")),
    })
}
