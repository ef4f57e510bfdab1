//! What reloads have left behind, over restarts and further reloads.

use std::os::unix::fs::{PermissionsExt as _, chown};

use super::*;

#[test]
fn a_file_that_only_another_user_can_read_is_told_with_what_to_do() -> Result<()> {
    let site = site("owner", &Topology::two_armed())?;
    let file = site.gateway.configuration();
    chown(file, Some(65534), Some(65534))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    // Root with all it may do reads it.
    site.gateway.verb(&["check"])?.expect(0)?;
    let said = site.gateway.verb(&["reload"])?.expect(3)?;
    let remedy = format!("`chown root: {}`", file.display());
    assert!(said.stderr.contains("is another user's") && said.stderr.contains(&remedy), "{said:?}");
    chown(file, Some(0), Some(0))?;
    site.gateway.verb(&["reload"])?.expect(0)?;
    Ok(())
}
