//! The last words: how to look into a lab that was kept, and what to type to use balancer for real.

use std::{
    env,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::page::{Page, Tone};
use super::site::{FIRST, SECOND, SERVER_NAME};

/// The smallest configuration for two servers; a test has `balancer check` read it.
const FIRST_CONFIGURATION: &str = include_str!("first.toml");

/// A lab that was left up.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) balancer: PathBuf,
    pub(super) ca_file: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) vip: IpAddr,
    /// Network namespaces.
    pub(super) gateway: String,
    pub(super) client: String,
    pub(super) server_pids: [Option<u32>; 2],
    pub(super) end_command: String,
}

impl Kept {
    /// Commands that can be copied as they are: continued with a backslash, never broken.
    pub(super) fn tell(&self, page: &Page) -> Result<()> {
        let balancer = as_typed(&self.balancer);
        let Self { ca_file, socket, vip, gateway, client, end_command, .. } = self;
        let kills = [FIRST, SECOND].into_iter().zip(self.server_pids);
        let kills: String =
            kills.filter_map(|(name, pid)| Some(format!("  kill -9 {:<8} # {name}\n", pid?))).collect();
        page.text(Tone::Title, "\nThe lab is still up. Look into it, as root:")?;
        page.text(
            Tone::Plain,
            &format!(
                "
  {balancer} status \\
    --socket {socket}

  nsenter --net=/run/netns/{client} \\
    curl --silent --show-error --cacert {ca_file} \\
    --resolve {SERVER_NAME}:443:{vip} https://{SERVER_NAME}/

  nsenter --net=/run/netns/{gateway} \\
    ip address

{kills}
End it:

  {end_command}",
                socket = socket.display(),
                ca_file = ca_file.display(),
            ),
        )
    }
}

/// What comes after the demo.
pub(super) fn tell_next(balancer: &Path, page: &Page) -> Result<()> {
    let balancer = as_typed(balancer);
    let configuration: String = FIRST_CONFIGURATION.lines().map(|line| format!("    {line}\n")).collect();
    page.text(Tone::Title, "\nTo use it for real, write balancer.toml with your own names and addresses:")?;
    page.text(
        Tone::Plain,
        &format!(
            "
{configuration}
Then, on the gateway, as root:

  {balancer} check --config balancer.toml
  {balancer} run --config balancer.toml
  {balancer} status

README.md, \"A first real configuration\", goes on from there."
        ),
    )
}

/// A path as a person would type it here: relative where it is below the current directory.
fn as_typed(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    let shorter = path.strip_prefix(here).ok().filter(|rest| rest.components().count() > 1);
    shorter.unwrap_or(path).display().to_string()
}
