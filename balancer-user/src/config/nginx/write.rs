//! A draft as TOML, for a person who will keep it: each comment above the line that it is about.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::draft::{
    BackendDraft, CheckDraft, Draft, Entry, PoolDraft, ProbeDraft, RedirectDraft, ServiceDraft,
};
use super::model::Left;
use super::remarks::{Remark, printable};

/// Comments are wrapped here.
const COLUMNS: usize = 110;

/// Lines that aren't carried over, and what they were part of, which are shown: more nobody reads, and a configuration of
/// balancer's is at most 1 MiB. The rest is counted.
const LEFT_SHOWN: usize = 2000;

/// What is different for all that is imported.
const DIFFERENCES: &[&str] = &[
    "TLS passes through: clients see the backends' own certificates, and each must be one for the public name.",
    "HTTP isn't read: no paths, names, headers, caches or error pages. Plain HTTP on a TLS port isn't answered.",
    "Backends see the gateway's address in place of the client's (forwarding = \"snat\"), in logs and allow-lists, too.",
    "One backend of a pool gets all new connections: the first that is up, in order; `backup` stands behind the others.",
];

const INTERFACES: &str = "REPLACE: the interfaces through which packets of clients and backends arrive. nginx doesn't name \
                          them; --interface does.";
const LISTEN: &str = "REPLACE: an example address. nginx names none; write the gateway's virtual address (or import with --vip).";
const REDIRECT: &str = "sends clients of plain HTTP to https; here the daemon itself does.";
const NO_HOST: &str = "nginx names no host: without redirect_hosts clients are sent to the address.";

/// The whole text.
pub(super) fn toml(draft: &Draft, remarks: &[Remark]) -> String {
    let mut page = Page::default();
    page.comment(&format!(
        "Made from nginx's {} by `balancer import nginx`. Read the comments, replace what is marked REPLACE, then run: \
         balancer check --config FILE",
        draft.file
    ));
    page.comment("");
    page.comment("What is different from nginx:");
    DIFFERENCES.iter().for_each(|difference| page.item(difference));
    if !remarks.is_empty() {
        page.comment("");
        page.comment("What to look at, by line of nginx's:");
        remarks.iter().for_each(|remark| page.item(&remark.to_string()));
    }
    page.table("[gateway]");
    if draft.interfaces.is_empty() {
        page.comment(INTERFACES);
        page.line("interfaces = [\"wan0\", \"lan0\"]");
    } else {
        page.texts_key("interfaces", &draft.interfaces);
    }
    draft.pools.iter().for_each(|pool| page.pool(pool));
    for section in &draft.sections {
        if page.has_room() {
            page.line("");
            page.comment(&format!("{}.", section.title));
        }
        page.left(&section.left);
    }
    if page.left > LEFT_SHOWN {
        page.line("");
        page.comment(&format!("{} more lines of nginx's are not carried over.", page.left - LEFT_SHOWN));
    }
    page.text
}

/// As nginx writes times most often: `60s`, not `1m`.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// A TOML string; nothing that is written here has a control character.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[derive(Default)]
struct Page {
    text: String,
    /// How many lines weren't carried over so far.
    left: usize,
}

impl Page {
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{line}");
    }

    fn text_key(&mut self, key: &str, value: &str) {
        self.line(&format!("{key} = {}", quoted(value)));
    }

    fn texts_key(&mut self, key: &str, values: &[String]) {
        let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        self.line(&format!("{key} = [{}]", values.join(", ")));
    }

    fn table(&mut self, header: &str) {
        self.line("");
        self.line(header);
    }

    fn comment(&mut self, text: &str) {
        self.wrapped("#", "#", text);
    }

    /// A comment in a list.
    fn item(&mut self, text: &str) {
        self.wrapped("# -", "#  ", text);
    }

    /// A comment on as many lines as it needs.
    fn wrapped(&mut self, first_prefix: &str, prefix: &str, text: &str) {
        let mut line = first_prefix.to_owned();
        let mut is_empty = true;
        for word in printable(text).split(' ').filter(|word| !word.is_empty()) {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
                self.line(&line);
                prefix.clone_into(&mut line);
            }
            line.push(' ');
            line.push_str(word);
            is_empty = false;
        }
        self.line(&line);
    }

    /// Counts a line that isn't carried over; whether it is shown.
    fn has_room(&mut self) -> bool {
        self.left += 1;
        self.left <= LEFT_SHOWN
    }

    /// Lines that aren't carried over, each meaning once, below its lines.
    fn left(&mut self, left: &[Left]) {
        let mut left: Vec<&Left> = left.iter().collect();
        left.sort_by_key(|line| &line.place);
        left.retain(|_| self.has_room());
        if left.is_empty() {
            return;
        }
        self.comment("Not carried over:");
        let mut groups: Vec<Vec<&Left>> = Vec::new();
        let mut by_meaning: BTreeMap<&str, usize> = BTreeMap::new();
        for line in left {
            let at = *by_meaning.entry(&line.meaning).or_insert(groups.len());
            if at == groups.len() {
                groups.push(Vec::new());
            }
            groups[at].push(line);
        }
        for group in groups {
            for Left { place, text, .. } in &group {
                let shown = printable(&format!("#   {place}: {text}"));
                self.line(&shown);
            }
            let meaning = group.first().map_or("", |line| &line.meaning);
            self.wrapped("#      ", "#      ", &format!("{meaning}."));
        }
    }

    fn pool(&mut self, pool: &PoolDraft) {
        self.line("");
        pool.comments.iter().for_each(|comment| self.comment(comment));
        self.left(&pool.left);
        self.line("[[pool]]");
        self.text_key("name", &pool.name);
        self.comment("As nginx: back to the first server as soon as it is up again; \"manual\" would stay on the backup.");
        self.text_key("failback", "auto");
        let first = pool.services.first().map(|service| &service.probe);
        let common =
            first.filter(|probe| pool.services.iter().all(|service| service.probe.check == probe.check));
        if let Some(probe) = common {
            self.probe("[pool.probe]", probe);
        }
        for service in &pool.services {
            self.service(service);
            if common.is_none() {
                self.probe("[pool.service.probe]", &service.probe);
            }
        }
        for Entry { comments, backend } in &pool.backends {
            self.line("");
            comments.iter().for_each(|comment| self.comment(comment));
            if let Some(backend) = backend {
                self.backend(backend);
            }
        }
    }

    fn probe(&mut self, header: &str, probe: &ProbeDraft) {
        self.line("");
        self.comment(&probe.comment);
        self.line(header);
        match &probe.check {
            CheckDraft::Tcp => self.text_key("kind", "tcp"),
            CheckDraft::TlsUnverified => {
                self.text_key("kind", "tls");
                self.line("verify = false");
            }
            CheckDraft::Tls { server_name, ca_file } => {
                self.text_key("kind", "tls");
                self.text_key("server_name", server_name);
                if let Some(ca_file) = ca_file {
                    self.text_key("ca_file", &ca_file.to_string_lossy());
                }
            }
        }
    }

    fn service(&mut self, service: &ServiceDraft) {
        self.line("");
        service.comments.iter().for_each(|comment| self.comment(comment));
        self.left(&service.left);
        self.line("[[pool.service]]");
        self.text_key("name", &service.name);
        if service.is_placeholder {
            self.comment(LISTEN);
        }
        self.text_key("listen", &service.listen.to_string());
        self.line(&format!("backend_port = {}", service.backend_port));
        if let Some(RedirectDraft { by, listen, hosts }) = &service.redirect {
            self.comment(&format!("{by} {REDIRECT}"));
            self.text_key("redirect_http", &listen.to_string());
            if hosts.is_empty() {
                self.comment(NO_HOST);
            } else {
                self.texts_key("redirect_hosts", hosts);
            }
        }
    }

    fn backend(&mut self, backend: &BackendDraft) {
        self.line("[[pool.backend]]");
        self.text_key("name", &backend.name);
        self.text_key("address", &backend.address);
        self.line(&format!("max_fails = {}", backend.max_fails));
        self.text_key("fail_timeout", &seconds(backend.fail_timeout));
        if backend.backup {
            self.line("backup = true");
        }
        if backend.disabled {
            self.line("disabled = true");
        }
    }
}
