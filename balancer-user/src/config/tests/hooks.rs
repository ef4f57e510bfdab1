//! What is written about hooks, and where they can't stand.

use super::*;

const HOOK: &str = "[[pool.hook]]\nname = \"promote\"\nwhen = \"before\"\nrun = [\"/hook\"]";

#[test]
fn a_hook_is_checked_like_everything_else() {
    for (from, to, words) in [
        ("\"promote\"", "«\"\"", "can't name a hook"),
        ("\"before\"", "«\"during\"", "unknown value `during`"),
        ("\"/hook\"", "«\"hook\"", "is not an absolute path"),
        ("run =", "timeout = «\"0s\"\nrun =", "too short"),
        ("run =", "on_error = «\"ignore\"\nrun =", "write \"hold\" or \"continue\""),
        ("run =", "«runs =", "unknown key `runs`"),
    ] {
        let (text, (line, column)) = marked(&format!("{BASE}{}", HOOK.replace(from, to)));
        let shown = refused(&text).to_string();
        assert!(
            shown.contains(&format!("f.toml:{line}:{column}: ")) && shown.contains(words),
            "{words}:\n{shown}"
        );
    }
    let (text, (line, column)) =
        marked(&format!("{BASE}{HOOK}\n{}", HOOK.replace("\"promote", "«\"promote")));
    let shown = refused(&text).to_string();
    assert!(
        shown.contains(&format!("f.toml:{line}:{column}: pool.hook.name: `promote` is already a hook")),
        "{shown}"
    );
    let shown = refused(&format!("{BASE}{HOOK}")).to_string();
    assert!(shown.contains("\"keep\" can't stand in a pool with `before` hooks"), "{shown}");
}
