//! The BPF object: embedded, loaded with its tables sized and, if wanted, pinned.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aya::EbpfLoader;
use aya::maps::{MapData, MapInfo};
use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya_obj::ProgramSection;
use aya_obj::programs::XdpAttachType;
use balancer_common::abi::Seed;
use balancer_common::table::{buckets_for, flows_for, lines_for};
use rustix::thread::{CapabilitySet, capabilities};

use super::DataplaneError;
use super::attach::Mode;
use super::{clock, seed};

/// A loaded object. Whoever holds it holds its program and those of its maps that were not taken.
pub use aya::Ebpf;

/// What `cargo xtask build` made; empty in a build without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/balancer.bpf.o"));

/// Entry point for frames in several buffers (kernel 5.18).
const PROGRAM: &str = "balancer";
/// Entry point for kernels without them.
const PROGRAM_LINEAR: &str = "balancer_linear";

/// Entry point of frames for interfaces on which the kernel's stack runs the program.
const COME_IN: &str = "come_in";
/// It drops all that it is given, and so nothing comes of trying it.
const DROPS: &str = "read_clock";

/// SHA-256 of the embedded object in hex; `None` in a build without it.
#[must_use]
pub fn hash() -> Option<&'static str> {
    Some(env!("BALANCER_BPF_OBJECT_HASH")).filter(|hash| *hash != "none")
}

/// What the configuration decides about the program and its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Established flows, of each family that is wanted.
    pub max_flows: u32,
    /// Handshakes under way, of each family that is wanted.
    pub max_half_open: u32,
    /// Services of this family; without any, its tables are empty.
    pub ipv4: bool,
    /// As `ipv4`; without any, the program leaves IPv6 alone.
    pub ipv6: bool,
    /// Frames may lie in several buffers, if the kernel can have them.
    pub frags: bool,
}

/// Entries of the tables of a family that isn't wanted: the kernel has no empty ones.
const UNUSED_ENTRIES: u32 = 1;

impl Wanted {
    /// Entries of the flow tables' maps.
    pub(super) fn entries(&self) -> [(&'static str, u32); 12] {
        let buckets = |wanted: bool, flows: u32| if wanted { buckets_for(flows) } else { UNUSED_ENTRIES };
        let lines = |wanted: bool, flows: u32| if wanted { lines_for(flows) } else { UNUSED_ENTRIES };
        [
            ("ESTAB_TAGS_4", buckets(self.ipv4, self.max_flows)),
            ("ESTABLISHED_4", lines(self.ipv4, self.max_flows)),
            ("ESTAB_PAST_4", lines(self.ipv4, self.max_flows)),
            ("HALF_TAGS_4", buckets(self.ipv4, self.max_half_open)),
            ("HALF_OPEN_4", lines(self.ipv4, self.max_half_open)),
            ("HALF_SYNS_4", lines(self.ipv4, self.max_half_open)),
            ("ESTAB_TAGS_6", buckets(self.ipv6, self.max_flows)),
            ("ESTABLISHED_6", lines(self.ipv6, self.max_flows)),
            ("ESTAB_PAST_6", lines(self.ipv6, self.max_flows)),
            ("HALF_TAGS_6", buckets(self.ipv6, self.max_half_open)),
            ("HALF_OPEN_6", lines(self.ipv6, self.max_half_open)),
            ("HALF_SYNS_6", lines(self.ipv6, self.max_half_open)),
        ]
    }

    /// The same for tables of the sizes that they have where they are pinned: in use, they can't get another one.
    #[must_use]
    pub fn of_pinned_sizes(mut self, directory: &Path) -> Self {
        let tables = [
            (["ESTAB_TAGS_4", "ESTAB_TAGS_6"], &mut self.max_flows),
            (["HALF_TAGS_4", "HALF_TAGS_6"], &mut self.max_half_open),
        ];
        for (names, flows) in tables {
            // What can't be read is refused when it is to be adopted.
            let pinned = names.into_iter().filter_map(|name| pinned(&directory.join(name)).ok());
            let buckets =
                pinned.map(|pinned| pinned.max_entries()).find(|buckets| *buckets != UNUSED_ENTRIES);
            if let Some(buckets) = buckets.filter(|buckets| *buckets != buckets_for(*flows)) {
                *flows = flows_for(buckets);
            }
        }
        self
    }
}

/// A loaded program.
pub struct Loaded {
    /// It and its maps.
    pub ebpf: Ebpf,
    /// Whether frames may lie in several buffers, as they do with a large MTU; if not, why.
    pub frags: Result<(), String>,
    /// Whether frames can be put before the program with [`Loaded::feed`]; if not, why.
    pub live_frames: Result<(), String>,
    program: &'static str,
}

impl Loaded {
    /// The XDP program.
    pub fn program(&mut self) -> Result<&mut Xdp, DataplaneError> {
        program(&mut self.ebpf, self.program)
    }

    /// Has a frame come in through an interface of this thread's network: the program sees it as it sees those of the wire,
    /// with the interrupts of packets off, and what it decides is carried out. Where the program runs in the kernel's stack
    /// a frame that it redirects leaves by other means than from here, so there the frame takes the stack's way.
    pub(super) fn feed(&self, frame: &[u8], ifindex: u32, mode: Mode) -> Result<(), DataplaneError> {
        let name = match mode {
            Mode::Native => self.program,
            Mode::Generic => COME_IN,
        };
        let program: &Xdp = self
            .ebpf
            .program(name)
            .and_then(|program| program.try_into().ok())
            .ok_or(DataplaneError::ObjectLacks("XDP program"))?;
        run_live(program, frame, ifindex).map_err(|error| DataplaneError::LiveFrames(Box::new(error)))
    }
}

/// Runs a program on a live frame (Linux 5.18).
fn run_live(program: &Xdp, frame: &[u8], ifindex: u32) -> Result<(), ProgramError> {
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; offsets, not pointers.
    let context = [0, frame.len() as u32, 0, ifindex, 0, 0].map(u32::to_ne_bytes);
    program.test_run(TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(context.as_flattened()),
        attrs: TestRunAttrs::new().xdp_live_frames(1),
        ..TestRunOptions::new()
    })?;
    Ok(())
}

/// Whether this kernel can.
fn try_live(ebpf: &mut Ebpf) -> Result<(), String> {
    /// The kernel runs no shorter one.
    const FRAME: [u8; 64] = [0; 64];
    let mut tried = || -> Result<(), DataplaneError> {
        let refused = |error: ProgramError| DataplaneError::Program(Box::new(error));
        program(ebpf, COME_IN)?.load().map_err(refused)?;
        let drops = program(ebpf, DROPS)?;
        drops.load().map_err(refused)?;
        let ran = run_live(drops, &FRAME, 0);
        drops.unload().map_err(refused)?;
        ran.map_err(|error| DataplaneError::LiveFrames(Box::new(error)))
    };
    tried().map_err(|error| error.to_string())
}

/// Loads object and program. With `pins` its maps are made there, or adopted when they are there already: only if each
/// of them is exactly what this build would make. A kernel that can't have frames in several buffers gets a program
/// without.
pub fn load(wanted: Wanted, pins: Option<&Path>) -> Result<Loaded, DataplaneError> {
    if OBJECT.is_empty() {
        return Err(DataplaneError::NoObject);
    }
    let maps = match pins {
        Some(directory) => {
            let Adoption { maps, outgrown } = adoptable(wanted, directory)?;
            for path in outgrown {
                std::fs::remove_file(&path)
                    .map_err(|error| DataplaneError::Pin { path, problem: error.to_string() })?;
            }
            maps
        }
        None => BTreeMap::new(),
    };
    let seed = seed::known_or_new(pins)?;
    let linear = |why: String| -> Result<Loaded, DataplaneError> {
        let mut ebpf = load_one(wanted, &seed, &maps, PROGRAM_LINEAR, false)?;
        let live_frames = try_live(&mut ebpf);
        Ok(Loaded { ebpf, frags: Err(why), live_frames, program: PROGRAM_LINEAR })
    };
    if !wanted.frags {
        return linear("not wanted".into());
    }
    match load_one(wanted, &seed, &maps, PROGRAM, true) {
        Ok(mut ebpf) => {
            let live_frames = try_live(&mut ebpf);
            Ok(Loaded { ebpf, frags: Ok(()), live_frames, program: PROGRAM })
        }
        // Where the program isn't taken without them either, what is wrong has nothing to do with buffers.
        Err(error @ DataplaneError::Program(_)) => linear(error.to_string()).map_err(|_| error),
        Err(error) => Err(error),
    }
}

/// Loads the object with one of its two programs. `maps`: where each is pinned, and with how many entries.
fn load_one(
    wanted: Wanted,
    seed: &Seed,
    maps: &BTreeMap<String, (PathBuf, u32)>,
    name: &str,
    frags: bool,
) -> Result<Ebpf, DataplaneError> {
    let (ipv6, frags, tick_ns) = (u8::from(wanted.ipv6), u8::from(frags), clock::tick_ns());
    let mut loader = EbpfLoader::new();
    loader
        .override_global("IPV6", &ipv6, true)
        .override_global("FRAGS", &frags, true)
        .override_global("MAX_FLOWS", &wanted.max_flows, true)
        .override_global("MAX_HALF_OPEN", &wanted.max_half_open, true)
        .override_global("TICK_NS", &tick_ns, true)
        .override_global("FLOW_SEED", seed, true);
    for (name, entries) in wanted.entries() {
        loader.map_max_entries(name, entries);
    }
    for (name, (path, entries)) in maps {
        loader.map_pin_path(name, path).map_max_entries(name, *entries);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| DataplaneError::Load(Box::new(error)))?;
    seed::keep(&mut ebpf, seed)?;
    program(&mut ebpf, name)?.load().map_err(|error| DataplaneError::Program(Box::new(error)))?;
    Ok(ebpf)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, DataplaneError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(DataplaneError::ObjectLacks("XDP program"))
}

/// What a start finds in the pin directory.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    /// Where each map is, or will be, pinned, and with how many entries.
    maps: BTreeMap<String, (PathBuf, u32)>,
    /// Pins of empty tables that have to make room for larger ones.
    outgrown: Vec<PathBuf>,
}

/// Where the object's maps are pinned and how many entries they have, after each one that is pinned was compared with
/// what this build would make: aya reuses a pinned map without a look.
pub(super) fn adoptable(wanted: Wanted, directory: &Path) -> Result<Adoption, DataplaneError> {
    let object = parsed()?;
    require_attach_type(&object)?;
    let sized = wanted.entries();
    let mut adoption = Adoption::default();
    for (name, map) in shared(&object) {
        let path = directory.join(name);
        let flow_table = sized.iter().find(|(sized, _)| sized == name).map(|(_, entries)| *entries);
        let mut entries = flow_table.unwrap_or(map.max_entries());
        if path.exists() {
            let pinned = pinned(&path)?;
            let found = pinned.max_entries();
            if flow_table.is_some() && found == UNUSED_ENTRIES && entries != found {
                // Nothing can be in it: it is made anew when its family comes into use.
                adoption.outgrown.push(path.clone());
            } else {
                if flow_table.is_some() && entries == UNUSED_ENTRIES {
                    // The last flows of a family that has gone out of use.
                    entries = found;
                }
                refuse_other(&path, &pinned, map, entries)?;
            }
        }
        adoption.maps.insert(name.clone(), (path, entries));
    }
    Ok(adoption)
}

/// The embedded object, to be looked at.
pub(super) fn parsed() -> Result<aya_obj::Object, DataplaneError> {
    if OBJECT.is_empty() {
        return Err(DataplaneError::NoObject);
    }
    aya_obj::Object::parse(OBJECT)
        .map_err(|error| DataplaneError::Load(Box::new(aya::EbpfError::ParseError(error))))
}

/// Its maps, without the sections of constants, which are maps too, of the program alone.
pub(super) fn shared(object: &aya_obj::Object) -> impl Iterator<Item = (&String, &aya_obj::Map)> {
    object.maps.iter().filter(|(name, _)| !name.starts_with('.'))
}

/// Links outlive versions, and the kernel puts no program into a link that was made for another attach type: it is
/// constant for ever (BPF_XDP).
fn require_attach_type(object: &aya_obj::Object) -> Result<(), DataplaneError> {
    let is_right = |name| {
        let section = object.programs.get(name).map(|program| &program.section);
        matches!(section, Some(ProgramSection::Xdp { attach_type: XdpAttachType::Interface, .. }))
    };
    let are_right = [PROGRAM, PROGRAM_LINEAR].into_iter().all(is_right);
    are_right.then_some(()).ok_or(DataplaneError::ObjectLacks("XDP program for interfaces"))
}

fn pinned(path: &Path) -> Result<MapInfo, DataplaneError> {
    MapData::from_pin(path).and_then(|pinned| pinned.info()).map_err(|error| DataplaneError::NotAdoptable {
        path: path.to_owned(),
        difference: format!("it can't be opened ({error})"),
    })
}

fn refuse_other(
    path: &Path,
    pinned: &MapInfo,
    map: &aya_obj::Map,
    entries: u32,
) -> Result<(), DataplaneError> {
    let facts = [
        ("its type", pinned.map_type().map_or(u32::MAX, |kind| kind as u32), map.map_type()),
        ("its key size", pinned.key_size(), map.key_size()),
        ("its value size", pinned.value_size(), map.value_size()),
        ("its number of entries", pinned.max_entries(), entries),
    ];
    match facts.into_iter().find(|(_, found, wanted)| found != wanted) {
        None => Ok(()),
        Some((what, found, wanted)) => Err(DataplaneError::NotAdoptable {
            path: path.to_owned(),
            difference: format!("{what} is {found}, this configuration and build want {wanted}"),
        }),
    }
}

/// Names what this process lacks before the kernel's bare EPERM does.
pub fn require_capabilities() -> Result<(), DataplaneError> {
    let missing = missing_capabilities()?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(DataplaneError::MissingCapabilities { missing: missing.join(", ") })
}

/// The capabilities that this process would need and doesn't have.
pub fn missing_capabilities() -> Result<Vec<&'static str>, DataplaneError> {
    let effective = capabilities(None)
        .map_err(|error| DataplaneError::Io { what: "reading capabilities".into(), source: error.into() })?
        .effective;
    // CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON, as before Linux 5.8.
    let admin = effective.contains(CapabilitySet::SYS_ADMIN);
    let wanted = [
        (CapabilitySet::BPF, "CAP_BPF", admin),
        (CapabilitySet::PERFMON, "CAP_PERFMON", admin),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", false),
        (CapabilitySet::NET_RAW, "CAP_NET_RAW", false),
    ];
    Ok(wanted
        .into_iter()
        .filter(|(capability, _, included)| !included && !effective.contains(*capability))
        .map(|(_, name, _)| name)
        .collect())
}
