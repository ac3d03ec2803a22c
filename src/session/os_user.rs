//! Operating system users by number.

use std::fs;

/// Name of the user this process runs as.
pub fn os_user() -> Option<String> {
    user_name(rustix::process::geteuid().as_raw())
}

/// Name of the user with this id, from `/etc/passwd`; the C library's other sources are not asked.
pub(super) fn user_name(uid: u32) -> Option<String> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        (id == uid).then(|| name.to_owned())
    });
    found.or_else(|| if uid == rustix::process::geteuid().as_raw() { std::env::var("USER").ok() } else { None })
}
