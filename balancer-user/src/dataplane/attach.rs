//! Puts the program on interfaces: all or none, and never in the place of somebody else's.
//!
//! Each attachment is a pinned bpf_link, so it outlives the controller; a later one finds the pin and changes the
//! program in place, without a packet lost.
//!
//! A program in native mode that attached well may still lose packets (`features`). So what was attached here is looked
//! at before it is pinned, and before services are reachable: then it is taken back, or everything new runs in generic
//! mode. What existed before stays as it is, because another mode would cut its traffic.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, Xdp, XdpMode};

use tracing::{info, warn};

use super::DataplaneError;
use super::advice;
use super::links::{self, LINK, Pinned, pin_error, pin_path};
use super::neighbours::Neighbours;

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

impl ModeChoice {
    /// Whether a program may run like that.
    #[must_use]
    pub const fn allows(self, mode: Mode) -> bool {
        match self {
            Self::Auto => true,
            Self::Native => matches!(mode, Mode::Native),
            Self::Generic => matches!(mode, Mode::Generic),
        }
    }
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
    /// Its largest packet.
    pub mtu: u32,
    /// The XDP program that netlink sees on it now, if any: its id and mode.
    pub program: Option<(u32, Mode)>,
    /// Whether frames can pass it.
    pub carrier: Carrier,
}

/// Whether frames can pass an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// They can.
    Up,
    /// It is up, but its cable, or the other end, is not.
    None,
    /// Somebody has set it down.
    Down,
}

/// A program on an interface. The pin keeps it there, not this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// The kernel's index for its device: another one of this name is another.
    pub ifindex: u32,
    /// How it runs there.
    pub mode: Mode,
    /// The kernel's id of the program.
    pub program_id: u32,
    /// The kernel's id of the link.
    pub link_id: u32,
    /// A warning for people, if it isn't what was hoped for.
    pub warning: Option<String>,
}

impl Attachment {
    /// Tells people of it.
    pub fn log(&self) {
        let Self { interface, mode, program_id, .. } = self;
        info!(event = "attached", interface = %interface, mode = mode.name(), program_id);
        if let Some(warning) = &self.warning {
            warn!(event = "attached", interface = %interface, "{warning}");
        }
    }
}

/// A link that ends with this value unless it is pinned.
struct Fresh {
    link: FdLink,
    attachment: Attachment,
}

/// Attaches the program everywhere. When one interface fails, those that were attached here are released, and links
/// that existed before stay. `former`: links of another layout whose place is taken. `open`: makes services reachable; it
/// is called when nothing new can fail any more, and before a link gets another program, which has to know them.
pub async fn attach_all(
    program: &mut Xdp,
    targets: &[Target],
    choice: ModeChoice,
    pins: &Path,
    former: &[Pinned],
    kernel: &Neighbours,
    open: impl FnOnce() -> Result<(), DataplaneError>,
) -> Result<Vec<Attachment>, DataplaneError> {
    let links = [&links::pinned(pins)?, former].concat();
    let ours: Vec<Option<&Pinned>> = targets.iter().map(|target| on(&links, target)).collect();
    let new: Vec<&Target> =
        targets.iter().zip(&ours).filter(|(_, link)| link.is_none()).map(|(target, _)| target).collect();
    // Fresh ones first: a foreign program shows itself before an existing link gets the new program.
    let fresh = attach_new(program, &new, targets, choice, kernel).await?;
    open()?;
    let existing = || targets.iter().zip(&ours).filter_map(|(target, link)| Some((target, (*link)?)));
    let updated = existing().map(|(target, link)| update(program, target, choice, &link.path));
    let mut attachments = updated.collect::<Result<Vec<_>, _>>()?;
    let named = |(target, link): (&Target, &Pinned)| (link.path.clone(), pin_path(pins, &target.interface));
    links::rename(&existing().map(named).collect::<Vec<_>>())?;
    attachments.extend(pin(fresh, pins)?);
    let position =
        |attachment: &Attachment| targets.iter().position(|target| target.interface == attachment.interface);
    attachments.sort_by_key(position);
    Ok(attachments)
}

/// The link that is on this device. All of ours have one program, and a device in another network namespace may have the same
/// index: of several it is the one that is pinned by the interface's name.
pub fn on<'a>(links: &'a [Pinned], target: &Target) -> Option<&'a Pinned> {
    let (program, _) = target.program?;
    let here = || links.iter().filter(|link| link.is_on(target.ifindex, program));
    let is_named = |link: &&Pinned| link.path.ends_with(pin_path(Path::new(""), &target.interface));
    here().find(is_named).or_else(|| here().next())
}

/// Attaches the program to one interface while it runs on others, by the same rules as at the start: nothing that is
/// attached changes, and what was pinned for this name makes room. A device that was in another network namespace has come
/// back with the program. `others`: where it runs already.
pub async fn attach_one(
    program: &mut Xdp,
    target: &Target,
    others: &[Target],
    choice: ModeChoice,
    pins: &Path,
    kernel: &Neighbours,
) -> Result<Attachment, DataplaneError> {
    if let Some(link) = on(&links::pinned(pins)?, target) {
        let attachment = update(program, target, choice, &link.path)?;
        links::rename(&[(link.path.clone(), pin_path(pins, &target.interface))])?;
        return Ok(attachment);
    }
    let all = [others, std::slice::from_ref(target)].concat();
    let fresh = attach_new(program, &[target], &all, choice, kernel).await?;
    let mut attachments = pin(fresh, pins)?;
    attachments.pop().ok_or_else(|| attach_error(target, Mode::Native, "nothing was attached".into()))
}

/// Attaches where there is no program yet, or nowhere. `all`: where packets may go from there.
async fn attach_new(
    program: &mut Xdp,
    new: &[&Target],
    all: &[Target],
    choice: ModeChoice,
    kernel: &Neighbours,
) -> Result<Vec<Fresh>, DataplaneError> {
    let mut lacks = match choice {
        ModeChoice::Auto | ModeChoice::Native => kernel.hidden_tags(new).await?,
        ModeChoice::Generic => BTreeMap::new(),
    };
    let mut fresh = Vec::new();
    if lacks.is_empty() {
        fresh = new.iter().map(|target| attach(program, target, choice)).collect::<Result<Vec<_>, _>>()?;
        lacks = kernel.lacks(all, &native(fresh.iter().map(|fresh| &fresh.attachment))).await?;
    }
    if lacks.is_empty() {
        return Ok(fresh);
    }
    // An interface has one program: the native ones make room.
    drop(fresh);
    without_native(program, new, choice, &lacks)
}

/// The interfaces on which the program runs natively.
pub fn native<'a>(attachments: impl IntoIterator<Item = &'a Attachment>) -> Vec<&'a str> {
    let native = attachments.into_iter().filter(|attachment| attachment.mode == Mode::Native);
    native.map(|attachment| attachment.interface.as_str()).collect()
}

/// Attaches in generic mode, or says why native mode can't be.
fn without_native(
    program: &mut Xdp,
    targets: &[&Target],
    choice: ModeChoice,
    lacks: &BTreeMap<String, String>,
) -> Result<Vec<Fresh>, DataplaneError> {
    if choice == ModeChoice::Native
        && let Some((_, lack)) = lacks.first_key_value()
    {
        return Err(DataplaneError::NativeLacks { problem: lack.clone() });
    }
    let attach = |target: &&Target| {
        let mut fresh = attach(program, target, ModeChoice::Generic)?;
        fresh.attachment.warning = lacks
            .get(&target.interface)
            .map(|lack| format!("{lack}; all interfaces fell back to generic mode, which is slower"));
        Ok(fresh)
    };
    targets.iter().map(attach).collect()
}

/// Pins links; all or none.
fn pin(fresh: Vec<Fresh>, pins: &Path) -> Result<Vec<Attachment>, DataplaneError> {
    let mut pinned: Vec<PathBuf> = Vec::new();
    let mut attachments = Vec::new();
    for Fresh { link, attachment } in fresh {
        let path = pin_path(pins, &attachment.interface);
        // In place of one whose device is gone, or has another name.
        let removed = match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(pin_error(&path, error)),
            _ => Ok(()),
        };
        if let Err(error) = removed.and_then(|()| link.pin(&path).map_err(|error| pin_error(&path, error))) {
            for path in &pinned {
                let _ = std::fs::remove_file(path);
            }
            return Err(error);
        }
        pinned.push(path);
        attachments.push(attachment);
    }
    Ok(attachments)
}

/// Whose program is on an interface before anything of ours is attached there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody's, or that of one of these links.
    Ours,
    /// That of one of the former ones.
    Former,
}

/// An error if the interface has a program that isn't pinned in any of these.
pub fn refuse_foreign(
    target: &Target,
    links: &[Pinned],
    former: &[Pinned],
) -> Result<Holder, DataplaneError> {
    match target.program {
        Some((id, _)) if on(links, target).is_none() => match on(former, target) {
            Some(_) => Ok(Holder::Former),
            None => Err(foreign(target, Some(id))),
        },
        _ => Ok(Holder::Ours),
    }
}

fn foreign(target: &Target, id: Option<u32>) -> DataplaneError {
    DataplaneError::ForeignProgram(advice::foreign(&target.interface, id))
}

/// Gives the pins of two interfaces each other's names, as the interfaces have done.
pub fn exchange(one: &str, other: &str, pins: &Path) -> Result<(), DataplaneError> {
    let [one, other] = [one, other].map(|interface| pin_path(pins, interface));
    let moves = [(one.clone(), other.clone()), (other, one)];
    links::rename(&moves.into_iter().filter(|(from, _)| from.exists()).collect::<Vec<_>>())
}

/// Takes the program off an interface; `false`: it was on none of this name.
pub fn release(interface: &str, pins: &Path) -> Result<bool, DataplaneError> {
    let path = pin_path(pins, interface);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(pin_error(&path, error)),
    }
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
            Err(error @ DataplaneError::ForeignProgram(_)) => return Err(error),
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
        Some(libc::EBUSY | libc::EEXIST) => foreign(target, None),
        code => {
            let advice = code.and_then(|code| advice::refusal(code, &target.interface));
            let advice = advice.map(|advice| format!(": {advice}")).unwrap_or_default();
            attach_error(target, mode, format!("{}{advice}", innermost(&error)))
        }
    })
}

/// Puts the program into a pinned link.
fn update(
    program: &mut Xdp,
    target: &Target,
    choice: ModeChoice,
    path: &Path,
) -> Result<Attachment, DataplaneError> {
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
        // The device has gone meanwhile, so a program that is seen there is not ours.
        Err(error) if os_error(&error) == Some(libc::ENOLINK) => {
            return Err(foreign(target, target.program.map(|(id, _)| id)));
        }
        Err(error) => return Err(attach_error(target, mode, innermost(&error))),
    };
    let link = program.take_link(id).map_err(|error| attach_error(target, mode, error.to_string()))?;
    let link: FdLink = link.try_into().map_err(|error: LinkError| pin_error(path, error))?;
    describe(target, mode, warning, &link)
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
        ifindex: target.ifindex,
        mode,
        program_id: info.program_id(),
        link_id: info.id(),
        warning,
    })
}

fn attach_error(target: &Target, mode: Mode, problem: String) -> DataplaneError {
    DataplaneError::Attach { interface: target.interface.clone(), mode: mode.name(), problem }
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

#[cfg(test)]
mod tests;
