//! Where a unique key lives, by rendezvous hashing.

/// The rendezvous weight of a key on a database: the highest is the key's home.
///
/// FNV-1a with a finaliser. It must never change, because it decides where keys live; the
/// standard library's hasher gives no such promise.
pub(crate) fn weight(database: &str, ability: &str, key: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    // The separator cannot stand in a name, so parts cannot run into each other.
    for byte in [database, "\0", ability, "\0", key].into_iter().flat_map(str::bytes) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home<'a>(databases: &[&'a str], key: &str) -> &'a str {
        databases.iter().max_by_key(|name| weight(name, "ability", key)).expect("not empty")
    }

    #[test]
    fn weights_never_change() {
        assert_eq!(weight("a", "thumbnail", "cat.jpg"), 8_220_701_292_390_773_072);
        assert_eq!(weight("db@host", "köln", " "), 14_832_880_237_250_117_768);
    }

    #[test]
    fn a_new_database_takes_its_share_of_keys_and_moves_no_other() {
        let (before, after) = (["a", "b", "c"], ["a", "b", "c", "d"]);
        let mut moved = 0;
        for n in 0..10_000 {
            let key = n.to_string();
            let (old, new) = (home(&before, &key), home(&after, &key));
            if old != new {
                assert_eq!(new, "d");
                moved += 1;
            }
        }
        assert!((2_300..2_700).contains(&moved), "{moved} of 10000 keys moved");
    }
}
