//! Watches an interface of a host and checks every frame's IPv4, TCP and ICMP checksum, of both families, as no stack
//! does it: a stack that drops a bad segment only makes the connection a little slower, and the test passes.
//!
//! A frame whose TCP checksum isn't in it yet (the kernel says so in PACKET_AUXDATA) is counted apart: sent with
//! checksum offload, or received and merged by GRO. GRO merges only segments whose checksum it has verified, a bad
//! one stays alone and is seen here; so with `tx off` on the hosts nothing escapes.
//!
//! Frames that XDP redirects never reach a packet socket: capture on clients and backends, not on the gateway.

mod frame;

use std::{
    collections::BTreeMap,
    io::IoSliceMut,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use nix::{
    cmsg_space,
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind,
            recvmsg, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};

use crate::lab::Host;
use frame::{Frame, Segment, TcpChecksum, decode};

/// The kernel's queue, for when the capturing thread waits for a CPU; what doesn't fit is counted as missed.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// The largest GRO frame.
const FRAME_MAX: usize = 64 * 1024 + 64;
const BAD_MAX: usize = 32;
const PATHS_MAX: usize = 100_000;
/// How often a quiet capture looks whether it should stop.
const QUIET: Duration = Duration::from_millis(20);
/// After the stop what is queued is still read, but not for ever when traffic goes on.
const DRAIN_MAX: Duration = Duration::from_secs(1);

mod packet_socket {
    //! Options of packet sockets that nix doesn't have.

    #[derive(Debug, Clone, Copy)]
    pub(super) struct AuxiliaryData;
    nix::setsockopt_impl!(
        AuxiliaryData,
        libc::SOL_PACKET,
        libc::PACKET_AUXDATA,
        bool,
        nix::sys::socket::sockopt::SetBool
    );

    #[derive(Debug, Clone, Copy)]
    pub(super) struct Statistics;
    nix::getsockopt_impl!(
        Statistics,
        libc::SOL_PACKET,
        libc::PACKET_STATISTICS,
        libc::tpacket_stats,
        nix::sys::socket::sockopt::GetStruct<libc::tpacket_stats>
    );
}

/// Seen from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Received.
    In,
    /// Sent.
    Out,
}

/// From whom to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// Whether the host received or sent it.
    pub direction: Direction,
    /// As on the wire.
    pub source: SocketAddr,
    /// As on the wire.
    pub destination: SocketAddr,
}

/// An ICMP error, of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IcmpError {
    /// Whether the host received or sent it.
    pub direction: Direction,
    /// Who complains.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// ICMP's or ICMPv6's type and code.
    pub kind: (u8, u8),
    /// The MTU, in errors that tell one; else 0.
    pub mtu: u32,
}

/// What a capture saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// All frames.
    pub frames: u64,
    /// TCP segments whose checksum was summed, and right.
    pub checked: u64,
    /// TCP segments whose checksum was not in the frame.
    pub not_ready: u64,
    /// Bytes of the largest TCP segment that was sent, with all its headers.
    pub largest_sent: usize,
    /// Frames with a wrong checksum or length.
    pub bad: u64,
    /// The first 32 of them.
    pub bad_checksums: Vec<String>,
    /// All segments per path. Received ones may have been merged by GRO; sent ones are as they leave.
    pub segments: BTreeMap<Path, u64>,
    /// Segments with SYN (SYN-ACK too) per path.
    pub syns: BTreeMap<Path, u64>,
    /// Segments with RST per path.
    pub rsts: BTreeMap<Path, u64>,
    /// Segments of paths beyond the first 100,000, counted in each list that they miss in.
    pub unlisted: u64,
    /// ICMP errors received and sent.
    pub icmp_errors: BTreeMap<IcmpError, u64>,
    /// Frames the kernel had no room to queue: not seen, so nothing is known about them.
    pub missed: u64,
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Report>>>,
}

impl Capture {
    /// Starts to watch; frames from now on are seen.
    ///
    /// # Errors
    /// When the host has no such interface, or without root.
    pub fn start(host: &Host, interface: &str) -> Result<Self> {
        let socket = host
            .enter(|| open(interface))?
            .with_context(|| format!("capture on {interface} of {}", host.role()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new()
            .name("capture".to_owned())
            .spawn({
                let stop = stop.clone();
                move || watch(&socket, &stop)
            })
            .context("start the capturing thread")?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it, after the frames queued so far.
    ///
    /// # Errors
    /// When the socket failed meanwhile.
    pub fn stop(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the capturing thread")?;
        thread.join().map_err(|_| anyhow!("the capturing thread panicked"))?
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test has failed already, or doesn't care.
            let _ = thread.join();
        }
    }
}

/// Index and hardware address of an interface of the calling thread's network.
pub(crate) fn link_address(interface: &str) -> Result<LinkAddr> {
    getifaddrs()
        .context("list interfaces")?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .with_context(|| format!("there is no interface {interface}"))
}

/// A socket stays in the network in which it was opened, whichever thread reads it.
fn open(interface: &str) -> Result<OwnedFd> {
    let address = link_address(interface)?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .context("open a packet socket (needs CAP_NET_RAW)")?;
    setsockopt(&socket, packet_socket::AuxiliaryData, &true).context("ask for PACKET_AUXDATA")?;
    setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES).context("make the queue larger (needs root)")?;
    let quiet_ms = i64::try_from(QUIET.as_millis()).context("milliseconds of quiet")?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(quiet_ms))
        .context("set the timeout")?;
    // Interfaces are listed with protocol 0: binding then keeps the socket's own, all of them.
    bind(socket.as_raw_fd(), &address).with_context(|| format!("bind to {interface}"))?;
    // What other interfaces had queued before the socket was bound is not of this interface.
    while recv_one(&socket, &mut [0; 1], MsgFlags::MSG_DONTWAIT)?.is_some() {}
    Ok(socket)
}

struct Received {
    length: usize,
    direction: Direction,
    tcp_checksum: TcpChecksum,
}

/// The next frame; `None` when there is none now.
fn recv_one(socket: &OwnedFd, buffer: &mut [u8], flags: MsgFlags) -> Result<Option<Received>> {
    let mut control = cmsg_space!(libc::tpacket_auxdata);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = match recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags) {
        Ok(message) => message,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
        Err(error) => return Err(error).context("read from the packet socket"),
    };
    let sender = message.address.context("a frame without its link address")?;
    let is_outgoing = sender.as_ref().sll_pkttype == libc::PACKET_OUTGOING;
    let mut status = None;
    for part in message.cmsgs().context("the frame's control message was cut")? {
        if let ControlMessageOwned::Unknown(part) = part
            && (part.cmsg_header.cmsg_level, part.cmsg_header.cmsg_type)
                == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
        {
            // tp_status is the first field of struct tpacket_auxdata.
            status = part.data_bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        }
    }
    let status = status.context("a frame without PACKET_AUXDATA")?;
    let is_ready = status & libc::TP_STATUS_CSUMNOTREADY == 0;
    Ok(Some(Received {
        length: message.bytes,
        direction: if is_outgoing { Direction::Out } else { Direction::In },
        tcp_checksum: if is_ready { TcpChecksum::InFrame } else { TcpChecksum::NotReady },
    }))
}

fn watch(socket: &OwnedFd, stop: &AtomicBool) -> Result<Report> {
    let mut report = Report::default();
    let mut buffer = vec![0; FRAME_MAX];
    let mut stopped_at: Option<Instant> = None;
    loop {
        if stopped_at.is_none() && stop.load(Ordering::Relaxed) {
            stopped_at = Some(Instant::now());
        }
        let received = recv_one(socket, &mut buffer, MsgFlags::empty())?;
        match (received, stopped_at) {
            (None, Some(_)) => break,
            (None, None) => {}
            (Some(received), _) => report.note(&buffer[..received.length], &received),
        }
        if stopped_at.is_some_and(|at| at.elapsed() > DRAIN_MAX) {
            break;
        }
    }
    let statistics = nix::sys::socket::getsockopt(socket, packet_socket::Statistics)
        .context("ask how many frames the kernel dropped")?;
    report.missed = u64::from(statistics.tp_drops);
    Ok(report)
}

impl Report {
    fn note(&mut self, frame: &[u8], received: &Received) {
        self.frames += 1;
        match decode(frame, received.tcp_checksum) {
            Frame::Other | Frame::Ip => {}
            Frame::IcmpError { source, destination, kind, mtu } => {
                let error = IcmpError { direction: received.direction, source, destination, kind, mtu };
                // As many different ones as there are hosts and complaints: bounded by the lab.
                *self.icmp_errors.entry(error).or_default() += 1;
            }
            Frame::Bad(what) => {
                self.bad += 1;
                if self.bad_checksums.len() < BAD_MAX {
                    self.bad_checksums.push(format!("{:?}: {what}", received.direction));
                }
            }
            Frame::Tcp(segment) => {
                match received.tcp_checksum {
                    TcpChecksum::InFrame => self.checked += 1,
                    TcpChecksum::NotReady => self.not_ready += 1,
                }
                if received.direction == Direction::Out {
                    self.largest_sent = self.largest_sent.max(frame.len());
                }
                self.note_segment(&segment, received.direction);
            }
        }
    }

    fn note_segment(&mut self, segment: &Segment, direction: Direction) {
        let path = Path { direction, source: segment.source, destination: segment.destination };
        for (is_set, paths) in
            [(true, &mut self.segments), (segment.is_syn, &mut self.syns), (segment.is_rst, &mut self.rsts)]
        {
            if !is_set {
                continue;
            }
            if paths.len() < PATHS_MAX || paths.contains_key(&path) {
                *paths.entry(path).or_default() += 1;
            } else {
                self.unlisted += 1;
            }
        }
    }
}
