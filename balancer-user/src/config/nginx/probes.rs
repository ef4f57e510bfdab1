//! How a service is probed that nginx only counted failed connections of.

use std::path::{Path, PathBuf};

use super::super::names;
use super::address::Goal;
use super::draft::{CheckDraft, ProbeDraft};
use super::model::Protocol;
use super::remarks::Remarks;
use super::server::{Server, Target};

/// The probe for what `target` of `server` leads to; `folder`: what nginx's paths are relative to.
pub(super) fn probe(server: &Server, target: &Target, folder: &Path, remarks: &mut Remarks) -> ProbeDraft {
    let draft = |comment: &str, check| ProbeDraft { comment: comment.to_owned(), check };
    if !target.tls {
        return match server.protocol {
            Protocol::Http => draft(
                "As nginx, which only counts connections that fail. \"http\" would want a good answer to a request, too: \
                 choose `path` and `expect_status` first.",
                CheckDraft::Tcp,
            ),
            Protocol::Stream => draft("As nginx, which only counts connections that fail.", CheckDraft::Tcp),
        };
    }
    let own_name = server.names.iter().find(|name| names::is_host(name));
    if !target.trust.verify {
        let better = own_name.map_or(String::new(), |name| {
            format!(
                " Better, if the backends have its certificate: server_name = \"{name}\", without `verify`."
            )
        });
        let comment =
            format!("nginx doesn't verify the backends' certificates either (no proxy_ssl_verify).{better}");
        return draft(&comment, CheckDraft::TlsUnverified);
    }
    let Some(server_name) = verified_name(target, own_name) else {
        let comment = "nginx verifies the backends' certificates, for a name that can't be told from its \
                       configuration: write it as server_name, and take `verify` out.";
        remarks.push(&target.place, format!("`{}`: {comment}", target.text));
        return draft(comment, CheckDraft::TlsUnverified);
    };
    let ca_file = target.trust.ca_file.as_ref().and_then(|file| absolute(folder, file));
    draft("As nginx verifies it (proxy_ssl_verify on).", CheckDraft::Tls { server_name, ca_file })
}

/// `proxy_ssl_name`, by default the host in `proxy_pass`.
fn verified_name(target: &Target, own_name: Option<&String>) -> Option<String> {
    let named = match (&target.trust.name, &target.destination.goal) {
        (Some(name), _) if name.contains('$') => own_name.cloned(),
        (Some(name), _) => Some(name.clone()),
        (None, Goal::Host { host, .. }) => Some(host.trim_matches(['[', ']']).to_owned()),
        (None, _) => None,
    };
    named.filter(|name| names::server(name).is_ok())
}

/// None: no path that balancer takes.
fn absolute(folder: &Path, file: &str) -> Option<PathBuf> {
    let path = std::path::absolute(folder.join(file)).ok()?;
    names::path(path.to_str()?).ok()
}
