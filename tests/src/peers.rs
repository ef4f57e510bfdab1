//! nginx and HAProxy, beside which balancer is measured: where they are, how they are started, and which they are.
//!
//! Deliberately not here: what they are told, which is what each benchmark is about, and where they come from, which is
//! xtask's affair.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::lab::{Lab, Process};

/// Where they are.
#[derive(Debug, Clone, clap::Args)]
pub struct Peers {
    #[arg(long, value_name = "PATH", default_value = "nginx")]
    nginx: PathBuf,
    /// nginx's stream module, if it isn't built in
    #[arg(long, value_name = "PATH")]
    nginx_stream: Option<PathBuf>,
    #[arg(long, value_name = "PATH", default_value = "haproxy")]
    haproxy: PathBuf,
    /// Where the libraries of nginx and HAProxy are, if not where the system has its own
    #[arg(long, value_name = "PATH")]
    libraries: Option<PathBuf>,
}

impl Peers {
    /// Starts nginx on the lab's gateway, with this configuration and what every one needs: the stream module, if that
    /// isn't built in, and to stay in the foreground.
    ///
    /// # Errors
    /// When the configuration can't be written, or no process started.
    pub fn nginx(&self, lab: &Lab, configuration: &str) -> Result<Process> {
        let module = self.nginx_stream.as_ref();
        let module = module.map(|module| format!("load_module {};\n", module.display())).unwrap_or_default();
        let text = format!("{module}daemon off;\npid nginx.pid;\n{configuration}");
        let file = written(lab, "nginx.conf", &text)?;
        let words = ["-p".into(), lab.dir().as_os_str().to_owned(), "-c".into(), file.into_os_string()];
        self.start(lab, &self.nginx, words.into_iter().chain(["-e".into(), "stderr".into()]))
    }

    /// Starts HAProxy on the lab's gateway, with this configuration and in the foreground.
    ///
    /// # Errors
    /// As [`Peers::nginx`].
    pub fn haproxy(&self, lab: &Lab, configuration: &str) -> Result<Process> {
        let file = written(lab, "haproxy.cfg", configuration)?;
        self.start(lab, &self.haproxy, ["-db".into(), "-f".into(), file.into_os_string()])
    }

    fn start(&self, lab: &Lab, program: &Path, words: impl IntoIterator<Item = OsString>) -> Result<Process> {
        let mut command = lab.gateway().command(program, words);
        self.lend_libraries(&mut command);
        lab.gateway().spawn_command(command)
    }

    fn lend_libraries(&self, command: &mut Command) {
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
    }

    /// Their names, and the first line that each says about itself.
    #[must_use]
    pub fn versions(&self) -> [(&'static str, String); 2] {
        let version = |program: &Path| {
            let mut command = Command::new(program);
            self.lend_libraries(&mut command);
            first_line_of(command.arg("-v"))
        };
        [("nginx", version(&self.nginx)), ("HAProxy", version(&self.haproxy))]
    }
}

fn written(lab: &Lab, name: &str, text: &str) -> Result<PathBuf> {
    let file = lab.dir().join(name);
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

/// The first line that a program says about itself, wherever it says it.
#[must_use]
pub(crate) fn version(program: &OsStr) -> String {
    first_line_of(Command::new(program).arg("--version"))
}

fn first_line_of(command: &mut Command) -> String {
    let said = match command.output() {
        Ok(output) if output.stdout.is_empty() => output.stderr,
        Ok(output) => output.stdout,
        Err(error) => return format!("unknown ({error})"),
    };
    String::from_utf8_lossy(&said).lines().next().unwrap_or("unknown").trim().to_owned()
}
