//! Puts the program on interfaces: all or none, and never in the place of somebody else's.
//!
//! Each attachment is a pinned bpf_link, so it outlives the controller; a later one finds the pin and changes the
//! program in place, without a packet lost.

use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, Xdp, XdpMode};

use super::DataplaneError;

/// Which modes may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeChoice {
    /// Native; where the driver can't, generic with a warning.
    Auto,
    /// In the driver, before a socket buffer exists.
    Native,
    /// In the kernel's network stack, on any interface.
    Generic,
}

/// How a program runs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's network stack.
    Generic,
}

impl Mode {
    /// As `status` and messages tell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Where a program is to be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The interface's name.
    pub interface: String,
    /// The kernel's index for it.
    pub ifindex: u32,
    /// The XDP program that netlink sees on it now, if any: its id and mode.
    pub program: Option<(u32, Mode)>,
}

/// A program on an interface. The pin keeps it there, not this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// How it runs there.
    pub mode: Mode,
    /// The kernel's id of the program.
    pub program_id: u32,
    /// The kernel's id of the link.
    pub link_id: u32,
    /// A warning for people, if it isn't what was hoped for.
    pub warning: Option<String>,
}

/// A link that ends with this value unless it is pinned.
struct Fresh {
    link: FdLink,
    attachment: Attachment,
}

/// Attaches the program everywhere. When one interface fails, those that were attached here are released, and links
/// that existed before keep the program that they have.
pub fn attach_all(
    program: &mut Xdp,
    targets: &[Target],
    choice: ModeChoice,
    pins: &Path,
) -> Result<Vec<Attachment>, DataplaneError> {
    // Fresh ones first: a foreign program shows itself before an existing link gets the new program.
    let (existing, new): (Vec<&Target>, Vec<&Target>) =
        targets.iter().partition(|target| pin_path(pins, &target.interface).exists());
    let mut fresh =
        new.into_iter().map(|target| attach(program, target, choice)).collect::<Result<Vec<_>, _>>()?;
    let mut attachments = Vec::new();
    for target in existing {
        let path = pin_path(pins, &target.interface);
        match update(program, target, choice, &path)? {
            Some(attachment) => attachments.push(attachment),
            None => {
                std::fs::remove_file(&path).map_err(|error| pin_error(&path, error))?;
                fresh.push(attach(program, target, choice)?);
            }
        }
    }
    let mut pinned = Vec::new();
    for Fresh { link, attachment } in fresh {
        let path = pin_path(pins, &attachment.interface);
        if let Err(error) = link.pin(&path) {
            for path in &pinned {
                let _ = std::fs::remove_file(path);
            }
            return Err(pin_error(&path, error));
        }
        pinned.push(path);
        attachments.push(attachment);
    }
    let position =
        |attachment: &Attachment| targets.iter().position(|target| target.interface == attachment.interface);
    attachments.sort_by_key(position);
    Ok(attachments)
}

/// An error if the interface has a program that isn't pinned here.
pub fn refuse_foreign(target: &Target, pins: &Path) -> Result<(), DataplaneError> {
    match target.program {
        Some((id, _)) if !pin_path(pins, &target.interface).exists() => Err(foreign(target, Some(id))),
        _ => Ok(()),
    }
}

fn foreign(target: &Target, id: Option<u32>) -> DataplaneError {
    let program = id.map(|id| format!(" (id {id})")).unwrap_or_default();
    DataplaneError::ForeignProgram { interface: target.interface.clone(), program }
}

const LINK: &str = "link-";

/// A link's pin, by interface name. bpffs has no names with a dot, which VLAN interfaces usually have.
fn pin_path(pins: &Path, interface: &str) -> PathBuf {
    pins.join(format!("{LINK}{}", interface.replace('%', "%25").replace('.', "%2e")))
}

/// Takes the program off the interfaces that are not among these.
pub fn release_others(kept: &[String], pins: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    let kept: Vec<PathBuf> = kept.iter().map(|interface| pin_path(pins, interface)).collect();
    let entries = std::fs::read_dir(pins).map_err(|error| pin_error(pins, error))?;
    let mut released = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| pin_error(pins, error))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(LINK) && !kept.contains(&path) {
            std::fs::remove_file(&path).map_err(|error| pin_error(&path, error))?;
            released.push(path);
        }
    }
    Ok(released)
}

fn attach(program: &mut Xdp, target: &Target, choice: ModeChoice) -> Result<Fresh, DataplaneError> {
    let (mode, id, warning) = match choice {
        ModeChoice::Native => (Mode::Native, try_attach(program, target, Mode::Native)?, None),
        ModeChoice::Generic => (Mode::Generic, try_attach(program, target, Mode::Generic)?, None),
        ModeChoice::Auto => match try_attach(program, target, Mode::Native) {
            Ok(id) => (Mode::Native, id, None),
            Err(error @ DataplaneError::ForeignProgram { .. }) => return Err(error),
            Err(error) => {
                let warning = format!("{error}; fell back to generic mode, which is slower");
                (Mode::Generic, try_attach(program, target, Mode::Generic)?, Some(warning))
            }
        },
    };
    let link = program.take_link(id).map_err(|error| attach_error(target, mode, error.to_string()))?;
    // Without bpf_link (before Linux 5.9) aya falls back to netlink, and what it attached there ends with its drop.
    let link: FdLink = link
        .try_into()
        .map_err(|_: LinkError| attach_error(target, mode, "the kernel has no bpf_link for XDP".into()))?;
    let attachment = describe(target, mode, warning, &link)?;
    Ok(Fresh { link, attachment })
}

fn try_attach(program: &mut Xdp, target: &Target, mode: Mode) -> Result<XdpLinkId, DataplaneError> {
    if let Some((id, _)) = target.program {
        return Err(foreign(target, Some(id)));
    }
    let flags = match mode {
        Mode::Native => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    program.attach_to_if_index(target.ifindex, flags).map_err(|error| match os_error(&error) {
        Some(libc::EBUSY | libc::EEXIST) => {
            DataplaneError::ForeignProgram { interface: target.interface.clone(), program: String::new() }
        }
        code => attach_error(target, mode, format!("{}{}", innermost(&error), advice(code))),
    })
}

/// Puts the program into a pinned link; `None`: the link's device is gone.
fn update(
    program: &mut Xdp,
    target: &Target,
    choice: ModeChoice,
    path: &Path,
) -> Result<Option<Attachment>, DataplaneError> {
    let mode = target.program.map_or(Mode::Native, |(_, mode)| mode);
    let warning = match (choice, mode) {
        (ModeChoice::Native, Mode::Generic) | (ModeChoice::Generic, Mode::Native) => Some(format!(
            "it stays in {} mode, in which it was attached: another mode would cut its traffic for a moment; \
             `balancer detach` and a new start change it",
            mode.name()
        )),
        (ModeChoice::Auto, _) | (ModeChoice::Native, Mode::Native) | (ModeChoice::Generic, Mode::Generic) => {
            None
        }
    };
    let link = PinnedLink::from_pin(path).map_err(|error| pin_error(path, error))?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|error| pin_error(path, error))?;
    let id = match program.attach_to_link(link) {
        Ok(id) => id,
        Err(error) if os_error(&error) == Some(libc::ENOLINK) => return Ok(None),
        Err(error) => return Err(attach_error(target, mode, innermost(&error))),
    };
    let link = program.take_link(id).map_err(|error| attach_error(target, mode, error.to_string()))?;
    let link: FdLink = link.try_into().map_err(|error: LinkError| pin_error(path, error))?;
    describe(target, mode, warning, &link).map(Some)
}

fn describe(
    target: &Target,
    mode: Mode,
    warning: Option<String>,
    link: &FdLink,
) -> Result<Attachment, DataplaneError> {
    let info = link.info().map_err(|error| attach_error(target, mode, error.to_string()))?;
    Ok(Attachment {
        interface: target.interface.clone(),
        mode,
        program_id: info.program_id(),
        link_id: info.id(),
        warning,
    })
}

/// What mends the usual refusals.
fn advice(code: Option<i32>) -> &'static str {
    match code {
        Some(libc::ERANGE) => {
            ": its MTU is too large for native XDP; lower it (`ip link set dev … mtu 3498`)"
        }
        Some(libc::EOPNOTSUPP) => ": its driver has no native XDP; use xdp_mode = \"generic\" or \"auto\"",
        Some(libc::ENODEV) => ": the interface is gone",
        _ => "",
    }
}

fn attach_error(target: &Target, mode: Mode, problem: String) -> DataplaneError {
    DataplaneError::Attach { interface: target.interface.clone(), mode: mode.name(), problem }
}

fn pin_error(path: &Path, problem: impl std::fmt::Display) -> DataplaneError {
    DataplaneError::Pin { path: path.to_owned(), problem: problem.to_string() }
}

/// The kernel's error number down the chain.
fn os_error(error: &ProgramError) -> Option<i32> {
    let mut current: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = current {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        current = error.source();
    }
    None
}

/// The last message of the chain: the kernel's own words.
fn innermost(error: &ProgramError) -> String {
    let mut current: &dyn std::error::Error = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}
