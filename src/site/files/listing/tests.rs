use std::time::{Duration, UNIX_EPOCH};

use percent_encoding::percent_decode_str;

use super::*;

fn file(name: impl AsRef<[u8]>, len: u64, second: u64) -> Item {
    let modified = Some(UNIX_EPOCH + Duration::from_secs(second));
    Item { name: name.as_ref().to_vec(), folder: false, len, modified }
}

fn folder(name: &str) -> Item {
    Item { name: name.into(), folder: true, len: 4096, modified: None }
}

fn page(items: Vec<Item>) -> String {
    html(Page { path: b"", items, truncated: false, query: None })
}

fn sorted(items: Vec<Item>, query: Option<&str>) -> Vec<String> {
    links(&html(Page { path: b"", items, truncated: false, query }))
}

/// Where the rows lead, in their order.
fn links(html: &str) -> Vec<String> {
    rows(html).iter().map(|row| between(row, "<a href=\"./", "\">").into()).collect()
}

fn rows(html: &str) -> Vec<&str> {
    html.split("<tr><th scope=row>").skip(1).collect()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start} in {text}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end} in {rest}")).0
}

/// A reproducible sequence (Knuth's MMIX).
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn name(&mut self, alphabet: &[u8], longest: u64) -> Vec<u8> {
        let len = 1 + self.below(longest);
        let size = alphabet.len() as u64;
        (0..len).map(|_| alphabet[usize::try_from(self.below(size)).unwrap()]).collect()
    }
}

/// That the link of each row leads to one of `names`, and that no row has markup that is not ours.
fn assert_harmless(html: &str, names: &[Vec<u8>]) {
    let rows = rows(html);
    assert_eq!(rows.len(), names.len());
    assert_eq!(html.matches("<tr").count(), names.len() + 1);
    let mut found = Vec::new();
    for row in rows {
        let (href, rest) = row.strip_prefix("<a href=\"./").unwrap().split_once("\">").unwrap();
        assert!(href.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)), "{href}");
        found.push(percent_decode_str(href).collect::<Vec<u8>>());
        let (shown, _) = rest.split_once("</a><td>").unwrap();
        assert!(!shown.contains(['<', '>', '"', '\'']) && !shown.contains(disguises), "{shown:?}");
        let plain = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"].iter().fold(shown.to_owned(), |s, e| s.replace(e, ""));
        assert!(!plain.contains('&'), "{shown}");
    }
    let mut names = names.to_vec();
    names.sort();
    found.sort();
    assert_eq!(found, names);
}

#[test]
fn hostile_names_are_text_and_links_lead_to_them() {
    let names: Vec<Vec<u8>> = [
        "<script>alert(1)</script>",
        "\"onmouseover=\"alert(1)",
        "'><img src=x onerror=alert(1)>",
        "&lt;b&gt; & &amp;",
        "javascript:alert(1)",
        "data:text/html,x",
        "C:",
        "?sort=name",
        "#top",
        "100%",
        "%2e%2e",
        "..%2f",
        "a b\tc\nd\re",
        "\\\\host\\share",
        "{title} {}",
        "photo\u{202e}gpj.exe",
        "\u{2066}x\u{2069}\u{200b}\u{feff}\u{ad}\u{2028}\u{85}",
        "größe 日本 👩‍💻",
        "-._~!*'();:@&=+$,[]",
        "]]>--><!--",
    ]
    .map(|name| name.as_bytes().to_vec())
    .into_iter()
    .chain([b"\xff\xfe\x80".to_vec(), b"\x01\x1b[2J\x7f".to_vec(), b"caf\xe9".to_vec(), b"//host/x".to_vec()])
    .collect();
    let html = page(names.iter().map(|name| file(name, 1, 0)).collect());
    assert_harmless(&html, &names);
    assert!(html.contains("<a href=\"./javascript%3Aalert%281%29\">javascript:alert(1)</a>"));
    assert!(html.contains(">photo\u{fffd}gpj.exe</a>"));
    assert!(html.contains(">größe 日本 👩‍💻</a>"));
    assert!(html.contains(">caf\u{fffd}</a>"));
}

#[test]
fn random_names_are_rows_that_are_well_formed() {
    let mut lcg = Lcg(1);
    let bytes: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
    for _ in 0..200 {
        let count = lcg.below(30);
        let names: Vec<_> = (0..count).map(|_| lcg.name(&bytes, 40)).collect();
        let items: Vec<_> = names.iter().map(|name| file(name, lcg.below(999), lcg.below(1 << 31))).collect();
        let html = page(items);
        if count > 0 {
            assert_harmless(&html, &names);
        }
    }
}

#[test]
fn folders_come_first_and_numbers_by_their_value() {
    let names = ["file10", "File2", "file1", "file02", "b.txt", "A.txt", "Äpfel", "äpfel", "10", "9", "1e3", "_", "a"];
    let mut items: Vec<_> = names.iter().map(|name| file(name, 1, 0)).collect();
    items.extend(["z", "Y", "x10", "x9"].map(folder));
    let decoded = |link: &String| percent_decode_str(link).decode_utf8_lossy().into_owned();
    let shown: Vec<_> = sorted(items, None).iter().map(decoded).collect();
    let expected = [
        "x9/", "x10/", "Y/", "z/", "1e3", "9", "10", "_", "a", "A.txt", "b.txt", "file1", "File2", "file02", "file10",
        "Äpfel", "äpfel",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn order_is_total() {
    let mut lcg = Lcg(2);
    let mut names: Vec<_> = (0..60).map(|_| lcg.name(b"0019aAbZ._\xc3\xa4\xff", 6)).collect();
    names.sort();
    names.dedup();
    let fold = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase().into_bytes();
    let folded: Vec<_> = names.iter().map(|name| fold(name)).collect();
    for a in &folded {
        for b in &folded {
            assert_eq!(by_value(a, b), by_value(b, a).reverse(), "{a:?} {b:?}");
            for c in &folded {
                if by_value(a, b).is_le() && by_value(b, c).is_le() {
                    let strict = by_value(a, b).is_lt() || by_value(b, c).is_lt();
                    let expected = if strict { Ordering::Less } else { Ordering::Equal };
                    assert_eq!(by_value(a, c), expected, "{a:?} {b:?} {c:?}");
                }
            }
        }
    }
    for query in ["", "sort=name&order=descending", "sort=size", "sort=modified&order=ascending"] {
        let items = |names: &[Vec<u8>]| names.iter().map(|name| file(name, name.len() as u64, 7)).collect();
        let once = sorted(items(&names), Some(query));
        let mut turned = names.clone();
        turned.reverse();
        turned.rotate_left(names.len() / 3);
        assert_eq!(once, sorted(items(&turned), Some(query)), "{query}");
    }
}

#[test]
fn query_says_the_order() {
    let items =
        || vec![folder("d2"), folder("d10"), file("a", 2, 30), file("b", 3, 10), file("c", 1, 20), file("e", 1, 20)];
    for (query, expected) in [
        ("sort=name&order=ascending", "d2/ d10/ a b c e"),
        ("sort=name&order=descending", "d10/ d2/ e c b a"),
        ("sort=name", "d2/ d10/ a b c e"),
        ("sort=size&order=ascending", "d2/ d10/ c e a b"),
        ("order=descending&sort=size", "d2/ d10/ b a c e"),
        ("sort=size", "d2/ d10/ b a c e"),
        ("sort=modified&order=ascending", "d2/ d10/ b c e a"),
        ("sort=modified&order=descending", "d2/ d10/ a c e b"),
        ("from=mail&sort=size&order=ascending&x", "d2/ d10/ c e a b"),
        ("", "d2/ d10/ a b c e"),
        ("sort=", "d2/ d10/ a b c e"),
        ("sort=Size", "d2/ d10/ a b c e"),
        ("sort=size&order=sideways", "d2/ d10/ a b c e"),
        ("order=descending", "d2/ d10/ a b c e"),
        ("&&=&%73ort=size&<script>", "d2/ d10/ a b c e"),
    ] {
        assert_eq!(sorted(items(), Some(query)).join(" "), expected, "{query}");
    }
}

#[test]
fn an_unknown_date_counts_as_the_earliest() {
    let unknown = Item { modified: None, ..file("u", 1, 0) };
    let html = html(Page {
        path: b"",
        items: vec![file("a", 1, 0), unknown],
        truncated: false,
        query: Some("sort=modified&order=ascending"),
    });
    assert_eq!(links(&html), ["u", "a"]);
    assert_eq!(rows(&html)[0], "<a href=\"./u\">u</a><td>1 B<td>\n");
}

#[test]
fn column_heads_link_to_the_other_order_and_mark_the_current_one() {
    let heads = |query| {
        let html = html(Page { path: b"", items: vec![file("a", 1, 0)], truncated: false, query });
        let head = between(&html, "<thead>", "<tbody>").to_owned();
        assert_eq!(head.matches("aria-sort").count(), 1);
        head.split("<th scope=col").skip(1).map(|th| th.trim_end().to_owned()).collect::<Vec<_>>()
    };
    let down = " <span aria-hidden=true>↓</span>";
    assert_eq!(
        heads(None),
        [
            " aria-sort=ascending><a href=\"?sort=name&amp;order=descending\">Name <span aria-hidden=true>↑</span></a>",
            "><a href=\"?sort=size&amp;order=descending\">Size</a>",
            "><a href=\"?sort=modified&amp;order=descending\">Modified (UTC)</a>",
        ]
    );
    assert_eq!(
        heads(Some("sort=size&order=descending")),
        [
            "><a href=\"?sort=name&amp;order=ascending\">Name</a>".to_owned(),
            format!(" aria-sort=descending><a href=\"?sort=size&amp;order=ascending\">Size{down}</a>"),
            "><a href=\"?sort=modified&amp;order=descending\">Modified (UTC)</a>".to_owned(),
        ]
    );
}

#[test]
fn breadcrumbs_climb_to_each_ancestor() {
    let crumbs = |path: &str| {
        let html = html(Page { path: path.as_bytes(), items: Vec::new(), truncated: false, query: None });
        let list = between(&html, "<ol>", "</ol>").to_owned();
        (list, html.contains("<tr class=up><th scope=row><a href=\"../\">"))
    };
    assert_eq!(crumbs(""), ("<li><h1 aria-current=page>Home</h1>".into(), false));
    assert_eq!(crumbs("a"), ("<li><a href=\"../\">Home</a><li><h1 aria-current=page>a</h1>".into(), true));
    assert_eq!(
        crumbs("a/<b>/c d"),
        (
            "<li><a href=\"../../../\">Home</a><li><a href=\"../../\">a</a>\
             <li><a href=\"../\">&lt;b&gt;</a><li><h1 aria-current=page>c d</h1>"
                .into(),
            true
        )
    );
}

#[test]
fn rows_show_sizes_and_dates_of_files() {
    let html = page(vec![folder("x"), file("small", 999, 1_795_366_987), file("large", 1_400_123, 0)]);
    let expected = [
        "<a href=\"./x/\">x/</a><td><td>\n",
        "<a href=\"./large\">large</a><td title=\"1,400,123 bytes\">1.4 MB\
         <td><time datetime=1970-01-01T00:00Z>1970-01-01 00:00</time>\n",
        "<a href=\"./small\">small</a><td>999 B<td><time datetime=2026-11-22T17:03Z>2026-11-22 17:03</time>\n",
    ];
    let rows = rows(&html);
    assert_eq!(rows.iter().map(|row| row.replace("</table>\n", "")).collect::<Vec<_>>()[..2], expected[..2]);
    assert!(rows[2].starts_with(expected[2]));
}

#[test]
fn sizes_by_the_table() {
    for (bytes, text) in [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1049, "1.0 kB"),
        (1050, "1.1 kB"),
        (1024, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1_400_000, "1.4 MB"),
        (999_950_000, "1.0 GB"),
        (1 << 40, "1.1 TB"),
        (1 << 50, "1.1 PB"),
        (u64::MAX, "18.4 EB"),
    ] {
        assert_eq!(size(bytes), text, "{bytes}");
    }
}

#[test]
fn numbers_are_grouped_by_three() {
    for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (123_456, "123,456"), (1_234_567, "1,234,567")] {
        assert_eq!(grouped(number), text);
    }
}

#[test]
fn foot_counts_what_is_shown() {
    for (items, foot) in [
        (vec![], "Nothing to show."),
        (vec![folder("a")], "1 folder"),
        (vec![file("a", 1, 0)], "1 file, 1 B"),
        (vec![folder("a"), folder("b"), file("c", 700, 0), file("d", 700, 0)], "2 folders, 2 files, 1.4 kB"),
        (vec![file("a", u64::MAX, 0), file("b", 1, 0)], "2 files, 18.4 EB"),
    ] {
        assert!(page(items).ends_with(&format!("<p>{foot}</p>\n</main>\n")), "{foot}");
    }
}

#[test]
fn a_folder_with_more_entries_says_how_many_are_shown() {
    let items: Vec<_> = (0..1200).map(|number| file(number.to_string(), 1, 0)).collect();
    let said = "<p class=note>Only the first 1,200 entries found are shown: this folder has more.</p>";
    let html = html(Page { path: b"a", items, truncated: true, query: None });
    assert!(html.contains(said) && html.contains("<p>Shown: 1,200 files, 1.2 kB</p>"));
    assert!(!page(vec![file("a", 1, 0)]).contains("Only the first"));
}

#[test]
fn an_empty_folder_has_a_way_back_and_the_empty_root_no_table() {
    let html = html(Page { path: b"a", items: Vec::new(), truncated: false, query: None });
    assert_eq!(html.matches("<tr").count(), 2);
    assert!(html.contains("Parent folder") && html.contains("Nothing to show."));
    assert!(!page(Vec::new()).contains("<table"));
}

#[test]
fn page_is_small_and_loads_nothing() {
    let empty = page(Vec::new());
    assert!(empty.len() < 4 * 1024, "{} bytes", empty.len());
    let full = page((0..100).map(|number| file(format!("a file's name {number}"), 123_456, number)).collect());
    let per_row = (full.len() - empty.len()) / 100;
    assert!(per_row < 200, "{per_row} bytes a row");
    for loads in ["<script", "src=", "href=\"http", "url(", "@import"] {
        assert!(!full.contains(loads), "{loads}");
    }
}
