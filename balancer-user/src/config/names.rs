//! The forms of names: of pools, services and backends, of interfaces, hosts and files, and command lines.

use std::net::IpAddr;
use std::path::PathBuf;

use rustls::pki_types::{DnsName, ServerName};

use super::limits::{ARGUMENTS, INTERFACE_NAME_BYTES, NAME_BYTES};
use super::notes::Says;
use super::problem::{Fault, quoted};
use super::table::Table;
use crate::program::CommandLine;

/// The name of a pool, a service or a backend.
pub(super) fn name(written: &str) -> Result<String, Fault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let instead = || format!("write 1 to {NAME_BYTES} letters (a-z), digits, `.`, `_` or `-`");
    if written.is_empty() {
        return Err(Fault::new("a name is empty", instead()));
    }
    if written.len() > NAME_BYTES {
        return Err(Fault::new(format!("a name of {} bytes is too long", written.len()), instead()));
    }
    if let Some(odd) = written.chars().find(|&c| !u8::try_from(c).is_ok_and(allowed)) {
        let odd = quoted(&odd.to_string());
        return Err(Fault::new(format!("a name can't contain {odd}"), instead()));
    }
    // A command line would take `-x` for an option, a path `..` for a folder.
    if written.starts_with(['-', '.']) {
        return Err(Fault::new(
            format!("a name can't start with `{}`", &written[..1]),
            "start it with a letter, a digit or `_`",
        ));
    }
    Ok(written.to_owned())
}

/// The name of a network interface, as the kernel allows it.
pub(super) fn interface(written: &str) -> Result<String, Fault> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
    let dots = matches!(written, "." | "..");
    if written.is_empty() || written.len() > INTERFACE_NAME_BYTES || dots || written.contains(odd) {
        return Err(Fault::new(
            format!("{} can't be the name of an interface", quoted(written)),
            "write a name that `ip link` shows",
        ));
    }
    Ok(written.to_owned())
}

/// A name that a certificate can carry.
pub(super) fn server(written: &str) -> Result<String, Fault> {
    match ServerName::try_from(written) {
        Ok(_) => Ok(written.to_owned()),
        Err(_) => Err(Fault::new(
            format!("{} is neither a host name nor an IP address", quoted(written)),
            "write the name in the backend's certificate, as in \"pw.example.org\"",
        )),
    }
}

/// A host name; an IP address is none.
pub(super) fn is_host(written: &str) -> bool {
    // A last label of digits only is an IPv4 address that went wrong (10.0.0.256), never a name (RFC 3696).
    let numeric =
        written.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    !numeric && written.parse::<IpAddr>().is_err() && DnsName::try_from(written).is_ok()
}

/// The absolute path of a file.
pub(super) fn path(written: &str) -> Result<PathBuf, Fault> {
    let shown = quoted(written);
    if !written.starts_with('/') {
        return Err(Fault::new(
            format!("{shown} is not an absolute path"),
            "write the whole path, from `/`: the folder in which a daemon runs is not yours",
        ));
    }
    if written.contains(char::is_control) {
        return Err(Fault::new(format!("{shown} contains a control character"), "write the path without it"));
    }
    Ok(PathBuf::from(written))
}

/// A command line, an array of the program's absolute path and its arguments. That only root can have written the program
/// is claimed of the machine.
pub(super) fn command(table: &mut Table<'_>, key: &'static str) -> Option<CommandLine> {
    let words = table.texts(key, ARGUMENTS, argument)?;
    let Some((program, arguments)) = words.value.split_first() else {
        let instead = format!("write for example {key} = [\"/path/of/program\", \"argument\"]");
        table.error(words.span, key, Fault::new("names no program", instead));
        return None;
    };
    match path(&program.value) {
        Ok(path) => {
            table.claim(program.span, key, Says::Program(path.clone()));
            let arguments = arguments.iter().map(|argument| argument.value.clone()).collect();
            Some(CommandLine { program: path, arguments })
        }
        Err(fault) => {
            table.error(program.span, key, fault);
            None
        }
    }
}

fn argument(written: &str) -> Result<String, Fault> {
    if written.contains('\0') {
        return Err(Fault::new("an argument can't contain a NUL", "write it without"));
    }
    Ok(written.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "server1", "Web-2.x_y", "_x", &"n".repeat(63)] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in ["", "a b", "ä", "a/b", "a\0", "-x", "..", &"n".repeat(64)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_interface_is_named_as_the_kernel_allows() {
        assert!(interface("enp3s0f1np1").is_ok() && interface("br-lan.100").is_ok());
        for bad in ["", ".", "..", "a b", "a/b", "eth0:1", "sixteen-letters-"] {
            assert!(interface(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_server_name_is_a_host_name_or_an_ip_address() {
        assert!(server("pw.example.org").is_ok() && server("10.0.0.1").is_ok() && server("::1").is_ok());
        for bad in ["", "a b", "https://x", "x:443", "-x.org", "x..org"] {
            assert!(server(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_wrong_ip_address_is_not_taken_for_a_host_name() {
        assert!(is_host("db1") && is_host("db1.example.org"));
        for bad in ["", "10.0.0.256", "10.0.0", "10.0.2.11", "::1", "10.0.2.11:443", "a b"] {
            assert!(!is_host(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_path_is_absolute() {
        assert!(path("/etc/x.pem").is_ok());
        assert!(path("x.pem").is_err() && path("").is_err() && path("/a\0").is_err());
    }
}
