//! What the kernel tells of this process's control group (cgroups(7)): how often it killed for want of memory.

use std::fs;
use std::path::PathBuf;

/// The counter of processes of this process's group, and of the groups below, that the kernel killed for want of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OomKills {
    /// `memory.events` or, of version 1, `memory.oom_control`.
    file: PathBuf,
}

impl OomKills {
    /// None where there is no such group or it cannot be seen. A process that is moved to another group later has that
    /// one's counter only when this is asked again.
    pub fn find() -> Option<Self> {
        let read = |path| fs::read_to_string(path).ok();
        let found = Self { file: counter_file(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)? };
        found.read().map(|_| found)
    }

    /// How many were killed until now.
    pub fn read(&self) -> Option<u64> {
        count(&fs::read_to_string(&self.file).ok()?)
    }
}

/// The file for a process with this `/proc/PID/cgroup` and `/proc/PID/mountinfo`. Where both versions are mounted, memory
/// is with the first one if that has it.
fn counter_file(groups: &str, mounts: &str) -> Option<PathBuf> {
    let group = |is_it: fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            is_it(controllers).then_some(path)
        })
    };
    let has_memory = |options: &str| options.split(',').any(|controller| controller == "memory");
    if let Some(path) = group(|controllers| controllers.split(',').any(|controller| controller == "memory")) {
        let mount = |kind: &str, options: &str| kind == "cgroup" && has_memory(options);
        return Some(folder(path, mounts, mount)?.join("memory.oom_control"));
    }
    let path = group(str::is_empty)?;
    Some(folder(path, mounts, |kind, _| kind == "cgroup2")?.join("memory.events"))
}

/// Where the group `path` is found, below the mount of this kind with these options (proc(5)): `36 35 98:0 /root /mnt
/// rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn folder(path: &str, mounts: &str, is_it: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut file_system = file_system.split(' ');
        let (kind, options) = (file_system.next()?, file_system.nth(1)?);
        let mut mount = mount.split(' ').skip(3);
        let (root, mount_point) = (mount.next()?, mount.next()?);
        let below = if root == "/" { path } else { path.strip_prefix(root)? };
        let is_below = below.is_empty() || below.starts_with('/');
        (is_it(kind, options) && is_below).then(|| PathBuf::from(mount_point).join(below.trim_start_matches('/')))
    })
}

/// The line `oom_kill 7` of either file.
fn count(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
    const V1: &str = "24 17 0:20 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
                      25 24 0:21 / /sys/fs/cgroup/unified rw shared:2 - cgroup2 cgroup2 rw\n\
                      26 24 0:22 / /sys/fs/cgroup/cpu rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n\
                      27 24 0:23 / /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory\n";

    fn found(groups: &str, mounts: &str) -> String {
        counter_file(groups, mounts).map_or_else(|| "none".to_owned(), |file| file.display().to_string())
    }

    #[test]
    fn the_counter_is_found_in_either_version() {
        let unit = "/sys/fs/cgroup/system.slice/regrow.service/memory.events";
        assert_eq!(found("0::/system.slice/regrow.service\n", V2), unit);
        assert_eq!(found("0::/\n", V2), "/sys/fs/cgroup/memory.events", "in a container with a name space of its own");
        let groups = "9:cpu,cpuacct:/other\n7:memory:/docker/1234\n0::/system.slice\n";
        assert_eq!(found(groups, V1), "/sys/fs/cgroup/memory/docker/1234/memory.oom_control");
    }

    #[test]
    fn a_mount_may_show_a_part_of_the_tree_only() {
        let mounts = V2.replace("0:26 / ", "0:26 /docker/12 ");
        assert_eq!(found("0::/docker/12/unit", &mounts), "/sys/fs/cgroup/unit/memory.events");
        assert_eq!(found("0::/docker/12", &mounts), "/sys/fs/cgroup/memory.events");
        assert_eq!(found("0::/docker/123", &mounts), "none");
    }

    #[test]
    fn where_nothing_is_mounted_or_said_there_is_no_counter() {
        assert_eq!(found("0::/", ""), "none");
        assert_eq!(found("", V2), "none");
        assert_eq!(found("garbage\n:\n::\n", &V1.replace(" - ", " ")), "none");
    }

    #[test]
    fn the_count_is_that_of_processes_killed() {
        assert_eq!(count("low 0\nhigh 0\nmax 3\noom 2\noom_kill 7\noom_group_kill 1\n"), Some(7));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn what_is_found_here_can_be_read() {
        if let Some(kills) = OomKills::find() {
            assert!(kills.read().is_some());
        }
    }
}
