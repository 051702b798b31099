//! The page that lists a folder: from names, sizes and dates to HTML. Pure; knows no file system and no response.

use std::cmp::Ordering;
use std::fmt::Write;
use std::time::SystemTime;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::log::stamp::DateCache;

#[cfg(test)]
mod tests;

/// A folder to be listed.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    /// The path of its URL: decoded segments joined by `/`, without one at either end; empty for the root.
    pub path: &'a [u8],
    pub items: Vec<Item>,
    /// Whether the folder has more entries than were read.
    pub truncated: bool,
    /// That of its URL, which says the order.
    pub query: Option<&'a str>,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Item {
    pub name: Vec<u8>,
    pub folder: bool,
    /// In bytes; of no meaning for a folder.
    pub len: u64,
    pub modified: Option<SystemTime>,
}

/// What the rows are ordered by, after folders were put before files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sorting {
    column: Column,
    order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Name,
    Size,
    Modified,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

/// The prefixes of the SI and how many bytes they stand for.
const UNITS: [(char, u64); 6] = [
    ('k', 1000),
    ('M', 1000_u64.pow(2)),
    ('G', 1000_u64.pow(3)),
    ('T', 1000_u64.pow(4)),
    ('P', 1000_u64.pow(5)),
    ('E', 1000_u64.pow(6)),
];

/// All but the unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The page, in UTF-8.
///
/// Whatever the names contain, the page loads nothing and runs nothing, and each link leads to the entry itself: it
/// begins with `./`, so that no name is taken for a scheme or a host, and every reserved byte is encoded.
pub(crate) fn html(page: Page<'_>) -> String {
    let Page { path, items, truncated, query } = page;
    let sorting = query.and_then(Sorting::from_query).unwrap_or(Sorting::DEFAULT);
    let totals = totals(&items);
    let names: usize = items.iter().map(|item| 2 * item.name.len() + 160).sum();
    let mut html = String::with_capacity(8 * 1024 + names);
    push_head(&mut html, path);
    if truncated {
        let shown = grouped(items.len() as u64);
        let _ =
            writeln!(html, "<p class=note>Only the first {shown} entries found are shown: this folder has more.</p>");
    }
    if !items.is_empty() || !path.is_empty() {
        push_table(&mut html, items, sorting, !path.is_empty());
    }
    let of_these = if truncated { "Shown: " } else { "" };
    let _ = writeln!(html, "<p>{of_these}{totals}</p>\n</main>");
    html
}

fn push_head(html: &mut String, path: &[u8]) {
    html.push_str(concat!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n",
        "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n<link rel=icon href=data:,>\n",
        "<style>\n",
        include_str!("listing.css"),
        "</style>\n<title>Index of /"
    ));
    push_text(html, path);
    html.push_str("</title>\n<main>\n");
    push_breadcrumbs(html, path);
}

/// The way from the root: a link for each folder but the last. They climb by `../`, so that what stands before the
/// site in the URL (a proxy's prefix) need not be known.
fn push_breadcrumbs(html: &mut String, path: &[u8]) {
    let below_root = path.split(|&byte| byte == b'/').filter(|segment| !segment.is_empty());
    let mut climb = below_root.clone().count();
    html.push_str("<nav aria-label=Breadcrumb>\n<ol>");
    for segment in std::iter::once(&b"Home"[..]).chain(below_root) {
        if climb > 0 {
            let _ = write!(html, "<li><a href=\"{}\">", "../".repeat(climb));
            push_text(html, segment);
            html.push_str("</a>");
            climb -= 1;
        } else {
            html.push_str("<li><h1 aria-current=page>");
            push_text(html, segment);
            html.push_str("</h1>");
        }
    }
    html.push_str("</ol>\n</nav>\n");
}

fn push_table(html: &mut String, items: Vec<Item>, sorting: Sorting, has_parent: bool) {
    html.push_str("<table>\n<thead>\n<tr>");
    for column in [Column::Name, Column::Size, Column::Modified] {
        push_column_head(html, column, sorting);
    }
    html.push_str("\n<tbody>\n");
    if has_parent {
        html.push_str(
            "<tr class=up><th scope=row><a href=\"../\"><span aria-hidden=true>↑</span> Parent folder</a><td><td>\n",
        );
    }
    let mut dates = DateCache::new();
    for item in sorting.sort(items) {
        push_row(html, &item, &mut dates);
    }
    html.push_str("</table>\n");
}

/// A link that sorts by this column, or turns the order around where the rows are sorted by it already.
fn push_column_head(html: &mut String, column: Column, current: Sorting) {
    let (state, arrow, order) = match current.order {
        _ if column != current.column => ("", "", column.first_order()),
        Order::Ascending => (" aria-sort=ascending", " <span aria-hidden=true>↑</span>", Order::Descending),
        Order::Descending => (" aria-sort=descending", " <span aria-hidden=true>↓</span>", Order::Ascending),
    };
    let (sort, order, title) = (column.as_str(), order.as_str(), column.title());
    let _ = write!(html, "<th scope=col{state}><a href=\"?sort={sort}&amp;order={order}\">{title}{arrow}</a>");
}

fn push_row(html: &mut String, item: &Item, dates: &mut DateCache) {
    let slash = if item.folder { "/" } else { "" };
    html.push_str("<tr><th scope=row><a href=\"./");
    html.extend(percent_encode(&item.name, RESERVED));
    html.extend([slash, "\">"]);
    push_text(html, &item.name);
    html.extend([slash, "</a>"]);
    push_size(html, (!item.folder).then_some(item.len));
    html.push_str("<td>");
    if let Some(modified) = item.modified {
        push_date(html, &dates.iso(modified));
    }
    html.push('\n');
}

/// The cell of a size, with the exact one in its title where it is rounded.
fn push_size(html: &mut String, len: Option<u64>) {
    html.push_str("<td");
    if let Some(len @ 1000..) = len {
        html.extend([" title=\"", &grouped(len), " bytes\""]);
    }
    html.push('>');
    html.extend(len.map(size));
}

/// From `2026-11-22T17:03:07.123Z`, as `2026-11-22 17:03` to read, in UTC.
fn push_date(html: &mut String, iso: &[u8; 24]) {
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&iso[range]).unwrap_or_default(); // ASCII
    let (day, minute) = (text(0..10), text(11..16));
    let _ = write!(html, "<time datetime={day}T{minute}Z>{day} {minute}</time>");
}

/// Appends bytes from outside as text: what is markup is escaped, what is not UTF-8 or not seen is shown as `U+FFFD`.
fn push_text(html: &mut String, text: &[u8]) {
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c if disguises(c) => html.push(char::REPLACEMENT_CHARACTER),
            c => html.push(c),
        }
    }
}

/// Whether a name could look like another by this character: it breaks lines, reorders the text, or is not seen at
/// all. The joiners `U+200C` and `U+200D`, which Persian and emoji need, are left in.
fn disguises(c: char) -> bool {
    let breaks = matches!(c, '\u{2028}' | '\u{2029}');
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let hides = matches!(c, '\u{ad}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    c.is_control() || breaks || reorders || hides
}

/// `2 folders, 1 file, 1.4 MB`.
fn totals(items: &[Item]) -> String {
    let counted = |count: usize, noun: &str| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{} {noun}{plural}", grouped(count as u64))
    };
    let folders = items.iter().filter(|item| item.folder).count();
    let files = items.len() - folders;
    let bytes = items.iter().filter(|item| !item.folder).fold(0_u64, |sum, item| sum.saturating_add(item.len));
    match (folders, files) {
        (0, 0) => "Nothing to show.".into(),
        (_, 0) => counted(folders, "folder"),
        (0, _) => format!("{}, {}", counted(files, "file"), size(bytes)),
        (_, _) => format!("{}, {}, {}", counted(folders, "folder"), counted(files, "file"), size(bytes)),
    }
}

/// With a prefix of the SI, whose kilo is 1000, and one decimal: `999 B`, `1.4 MB`.
fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let tenths = |unit: u64| (u128::from(bytes) * 10 + u128::from(unit / 2)) / u128::from(unit);
    // 999.95 kB is 1.0 MB. The largest u64 is 18.4 EB.
    let (prefix, unit) = UNITS.into_iter().find(|&(_, unit)| tenths(unit) < 10_000).unwrap_or(UNITS[5]);
    format!("{}.{} {prefix}B", tenths(unit) / 10, tenths(unit) % 10)
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Sorting {
    const DEFAULT: Self = Self { column: Column::Name, order: Order::Ascending };

    /// `None` if the query names no order or one that there is not.
    fn from_query(query: &str) -> Option<Self> {
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let column = Column::from_str(value("sort")?)?;
        let order = match value("order") {
            Some(order) => Order::from_str(order)?,
            None => column.first_order(),
        };
        Some(Self { column, order })
    }

    fn sort(self, items: Vec<Item>) -> impl Iterator<Item = Item> {
        let folded = |item: &Item| String::from_utf8_lossy(&item.name).to_lowercase().into_bytes();
        let mut keyed: Vec<_> = items.into_iter().map(|item| (folded(&item), item)).collect();
        keyed.sort_unstable_by(|(a_folded, a), (b_folded, b)| {
            let by_name = || by_value(a_folded, b_folded).then_with(|| a.name.cmp(&b.name));
            b.folder.cmp(&a.folder).then_with(|| self.compare(a, b, by_name))
        });
        keyed.into_iter().map(|(_, item)| item)
    }

    /// Equal sizes and dates are ordered by name, ascending.
    fn compare(self, a: &Item, b: &Item, by_name: impl Fn() -> Ordering) -> Ordering {
        let ordering = match self.column {
            Column::Name => by_name(),
            Column::Size if a.folder => Ordering::Equal,
            Column::Size => a.len.cmp(&b.len),
            Column::Modified => a.modified.cmp(&b.modified),
        };
        let ordering = match self.order {
            Order::Ascending => ordering,
            Order::Descending => ordering.reverse(),
        };
        ordering.then_with(by_name)
    }
}

/// Compares byte by byte, but numbers by their value: `file2` comes before `file10`.
fn by_value(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while let ([x, a_rest @ ..], [y, b_rest @ ..]) = (a, b) {
        let ordering = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (a_number, b_number);
            (a_number, a) = split_number(a);
            (b_number, b) = split_number(b);
            a_number.len().cmp(&b_number.len()).then_with(|| a_number.cmp(b_number))
        } else {
            (a, b) = (a_rest, b_rest);
            x.cmp(y)
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
    a.len().cmp(&b.len())
}

/// The digits at the start, without leading zeros, and what follows.
fn split_number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    (&digits[zeros..], rest)
}

impl Column {
    fn from_str(text: &str) -> Option<Self> {
        [Self::Name, Self::Size, Self::Modified].into_iter().find(|column| column.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Size => "size",
            Self::Modified => "modified",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Name => "Name",
            Self::Size => "Size",
            Self::Modified => "Modified (UTC)",
        }
    }

    /// What is looked for by size or date is mostly the largest or the latest.
    fn first_order(self) -> Order {
        match self {
            Self::Name => Order::Ascending,
            Self::Size | Self::Modified => Order::Descending,
        }
    }
}

impl Order {
    fn from_str(text: &str) -> Option<Self> {
        [Self::Ascending, Self::Descending].into_iter().find(|order| order.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ascending => "ascending",
            Self::Descending => "descending",
        }
    }
}
