//! A DNS server of the tests, and what makes a host's programs ask it: files in the place of `/etc/resolv.conf`, `/etc/hosts`
//! and `/etc/nsswitch.conf`, in a mount namespace of the program's own.
//!
//! It knows what the test tells it, may fail or be silent, and can be told otherwise at any time. Deliberately not here: other
//! record types than A and AAAA, TCP, caches.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::lab::Lab;

/// On the gateway, where nobody else listens for questions.
const LISTEN: &str = "127.0.0.53:53";
/// Between looks whether the test has ended.
const TURN: Duration = Duration::from_millis(50);
/// The least that a question has: a header of 12 bytes, an empty name, type and class.
const SHORTEST: usize = 17;

/// What a server does with questions for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These are its addresses.
    Addresses(Vec<IpAddr>),
    /// SERVFAIL.
    Failure,
    /// Nothing.
    Silence,
}

type Zone = Arc<Mutex<BTreeMap<String, Answer>>>;

/// It answers until it is dropped.
#[derive(Debug)]
pub struct NameServer {
    zone: Zone,
    has_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    dir: PathBuf,
}

impl NameServer {
    /// Starts one on the lab's gateway that knows no name.
    ///
    /// # Errors
    /// When it can't listen.
    pub fn start(lab: &Lab) -> Result<Self> {
        let socket = lab.gateway().enter(|| UdpSocket::bind(LISTEN))?.context("listen for questions")?;
        socket.set_read_timeout(Some(TURN))?;
        let dir = lab.dir().to_owned();
        let address: SocketAddr = LISTEN.parse()?;
        // The resolver's own patience is shorter than what the daemon has with it.
        let resolv = format!("nameserver {}\noptions timeout:1 attempts:1\n", address.ip());
        fs::write(dir.join("resolv.conf"), resolv)?;
        fs::write(dir.join("hosts"), "127.0.0.1 localhost\n")?;
        fs::write(dir.join("nsswitch.conf"), "hosts: files dns\n")?;
        let (zone, has_ended) = (Zone::default(), Arc::new(AtomicBool::new(false)));
        let (known, ends) = (zone.clone(), has_ended.clone());
        let thread = Some(thread::spawn(move || serve(&socket, &known, &ends)));
        Ok(Self { zone, has_ended, thread, dir })
    }

    /// From now on this is what it says of a name.
    pub fn tell(&self, name: &str, answer: Answer) {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), answer);
    }

    /// A command line that runs what stands behind it with this server as the only one.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        let bind = |file: &str| format!("mount --bind '{}' /etc/{file} && ", self.dir.join(file).display());
        let script = ["resolv.conf", "hosts", "nsswitch.conf"].map(bind).concat() + "exec \"$@\"";
        ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).into()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(socket: &UdpSocket, zone: &Zone, has_ended: &AtomicBool) {
    let mut question = [0; 512];
    while !has_ended.load(Ordering::Relaxed) {
        let Ok((length, asker)) = socket.recv_from(&mut question) else { continue };
        if let Some(answer) = answer(&question[..length], zone) {
            // Who has asked may be gone.
            let _ = socket.send_to(&answer, asker);
        }
    }
}

/// The answer to a packet with one question, if it gets one.
fn answer(packet: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    if packet.len() < SHORTEST {
        return None;
    }
    let (name, end) = name(packet)?;
    let kind = u16::from_be_bytes([*packet.get(end)?, *packet.get(end + 1)?]);
    let question = packet.get(12..end + 4)?;
    let known = zone.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
    let (code, addresses): (u8, Vec<IpAddr>) = match known {
        Some(Answer::Silence) => return None,
        Some(Answer::Failure) => (2, Vec::new()),
        Some(Answer::Addresses(addresses)) => (0, addresses),
        // No such name.
        None => (3, Vec::new()),
    };
    let wanted = |address: &&IpAddr| {
        (kind, address.is_ipv4()) == (1, true) || (kind, address.is_ipv4()) == (28, false)
    };
    let records: Vec<&IpAddr> = addresses.iter().filter(wanted).collect();
    let mut answer = packet[..2].to_vec();
    // An answer; recursion was desired, and is there.
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(records.len()).ok()?, 0, 0, 0, 0]);
    answer.extend(question);
    for address in records {
        let data = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        // The question's name, its type, class IN, for a second.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 1, 0, u8::try_from(data.len()).ok()?]);
        answer.extend(data);
    }
    Some(answer)
}

/// The name that is asked for, and where it ends.
fn name(packet: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join(".").to_lowercase(), at));
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).into_owned());
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_answered_to_a_question_for_its_family() {
        let zone = Zone::default();
        let name = "db1.example.org".to_owned();
        zone.lock().unwrap().insert(name, Answer::Addresses(vec![[10, 0, 2, 11].into()]));
        let mut question = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        question.extend(b"\x03db1\x07example\x03org\x00\x00\x01\x00\x01");
        let said = answer(&question, &zone).unwrap();
        assert_eq!((&said[..2], said[3], said[7]), (&[7, 9][..], 0x80, 1));
        assert!(said.ends_with(&[0, 4, 10, 0, 2, 11]), "{said:?}");
        let kind = question.len() - 3;
        question[kind] = 28;
        assert_eq!(answer(&question, &zone).unwrap()[7], 0);
        assert!(answer(&question[..SHORTEST - 1], &zone).is_none());
    }
}
