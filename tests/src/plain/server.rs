//! The server behind what is measured: it sends back what comes in, and pours bytes into connections that begin with
//! [`POUR`].

use std::{
    io::{Read, Write, stdout},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    buffer::spare_capacity,
    event::epoll,
    io::{Errno, ioctl_fionbio, read, write},
    net::{AddressFamily, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt},
};

/// A request, and its answer.
pub(super) const REQUEST_BYTES: usize = 16;
/// What a client begins with that wants no echo.
pub(super) const POUR: u8 = b'd';
/// What a client begins with that wants an echo.
pub(super) const ECHO: u8 = b'e';

/// More than any number of clients in parallel: a full one would cost them a second.
const BACKLOG: i32 = 4096;
/// Fills any window of TCP's in a few writes.
const POUR_BYTES: usize = 256 * 1024;

/// Serves for ever.
pub(super) fn serve(addresses: &[SocketAddr]) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("make an epoll")?;
    let mut server = Server { epoll, peers: Vec::new() };
    for address in addresses {
        let listener = listener(address).with_context(|| format!("listen on {address}"))?;
        server.add(Peer::Listener(listener.into())).with_context(|| format!("watch {address}"))?;
    }
    println!("ready");
    stdout().flush().context("say ready")?;
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&server.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for events"),
        }
        for event in &events {
            server.handle(event.data.u64() as usize)?;
        }
    }
}

fn listener(address: &SocketAddr) -> Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Whether a server of this kind answers there, within this time.
///
/// # Errors
/// When it doesn't; with what happened instead.
pub fn echoes(target: SocketAddr, timeout: Duration) -> Result<()> {
    answered(target, timeout).map(drop)
}

/// A connection on which a request has been answered.
pub(super) fn answered(target: SocketAddr, timeout: Duration) -> Result<TcpStream> {
    let mut connection = TcpStream::connect_timeout(&target, timeout).context("connect")?;
    connection.set_read_timeout(Some(timeout)).context("limit the time of an answer")?;
    let (request, mut answer) = ([ECHO; REQUEST_BYTES], [0; REQUEST_BYTES]);
    connection.write_all(&request).context("send a request")?;
    connection.read_exact(&mut answer).context("read the answer")?;
    ensure!(answer == request, "the answer is another one: {answer:?}");
    Ok(connection)
}

enum Peer {
    Listener(OwnedFd),
    Client(OwnedFd),
}

impl Peer {
    fn socket(&self) -> &OwnedFd {
        match self {
            Self::Listener(socket) | Self::Client(socket) => socket,
        }
    }
}

struct Server {
    epoll: OwnedFd,
    /// By the number of the file descriptor, which is small and used again.
    peers: Vec<Option<Peer>>,
}

impl Server {
    fn add(&mut self, peer: Peer) -> Result<()> {
        let number = usize::try_from(peer.socket().as_raw_fd()).context("a file descriptor below 0")?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&self.epoll, peer.socket(), data, epoll::EventFlags::IN)?;
        if self.peers.len() <= number {
            self.peers.resize_with(number + 1, || None);
        }
        self.peers[number] = Some(peer);
        Ok(())
    }

    fn handle(&mut self, number: usize) -> Result<()> {
        match self.peers.get(number).and_then(Option::as_ref) {
            Some(Peer::Listener(_)) => self.accept(number),
            Some(Peer::Client(_)) => self.answer(number),
            None => Ok(()),
        }
    }

    fn accept(&mut self, number: usize) -> Result<()> {
        while let Some(Peer::Listener(listener)) = &self.peers[number] {
            match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(client) => self.add(Peer::Client(client))?,
                // One that was given up before it was accepted is its client's loss.
                Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error).context("accept a connection"),
            }
        }
        Ok(())
    }

    fn answer(&mut self, number: usize) -> Result<()> {
        let Some(Peer::Client(client)) = &self.peers[number] else { return Ok(()) };
        let mut buffer = [0; 4096];
        match read(client, &mut buffer[..]) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Its end, or a reset: both are the client's business.
            Ok(0) | Err(_) => self.peers[number] = None,
            Ok(length) if buffer[0] == POUR && length == 1 => {
                epoll::delete(&self.epoll, client)?;
                if let Some(Peer::Client(client)) = self.peers[number].take() {
                    pour(client)?;
                }
            }
            Ok(length) => {
                if write(client, &buffer[..length]).is_err() {
                    self.peers[number] = None;
                }
            }
        }
        Ok(())
    }
}

/// Writes until the client has had enough, on a thread of its own.
fn pour(client: OwnedFd) -> Result<()> {
    ioctl_fionbio(&client, false).context("make a connection blocking")?;
    let mut client = TcpStream::from(client);
    let write = move || {
        let bytes = vec![0; POUR_BYTES];
        while client.write_all(&bytes).is_ok() {}
    };
    thread::Builder::new().name("pour".to_owned()).spawn(write).context("start a pouring thread")?;
    Ok(())
}
