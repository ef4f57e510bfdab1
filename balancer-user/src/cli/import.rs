//! What may be typed for `import`; whoever knows configurations carries it out.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Whose configuration it is.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Import {
    /// nginx: `upstream` and `server`, of http and stream, with all that the file includes
    ///
    /// TOML on stdout, with a comment for each line that could not be carried over and what that means; what to look at
    /// first on stderr, too. Upstreams with the same hosts become one pool. Exits 3 if nothing can be imported.
    #[command(after_help = EXAMPLES)]
    Nginx(NginxArgs),
}

/// `balancer import nginx`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct NginxArgs {
    /// nginx's configuration; what it includes is relative to its folder
    pub file: PathBuf,
    /// An interface of the gateway to attach to; several times for several
    #[arg(long = "interface", value_name = "I")]
    pub interfaces: Vec<String>,
    /// The gateway's virtual address, for each `listen` without one
    #[arg(long, value_name = "A")]
    pub vip: Option<IpAddr>,
    /// Keep upstreams with the same hosts apart, so that each moves by itself
    #[arg(long)]
    pub separate: bool,
}

const EXAMPLES: &str = "\
Examples:
  balancer import nginx /etc/nginx/nginx.conf > balancer.toml
  balancer import nginx pw.conf --interface wan0 --interface lan0 --vip 203.0.113.10
  balancer check --no-resolve --config balancer.toml    then, on any machine";
