//! Files, functions and traits fit their limits.

use std::collections::BTreeMap;

use super::{File, Problem, allow, scan};

/// Lines of a source file, test modules not counted.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function outside tests, from `fn` to the closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Methods an implementor of a trait has to write.
const TRAIT_METHODS_MAX: usize = 5;
/// Lines of ARCHITECTURE.md.
const ARCHITECTURE_LINES_MAX: usize = 250;
/// The kinds of file that are written by hand and therefore limited.
const SOURCES: [&str; 6] = ["rs", "py", "sh", "js", "css", "html"];

/// Checks all files against the limits, and the allow list against the files.
pub(super) fn check(files: &[File], allowed: &allow::List) -> Vec<Problem> {
    let mut file_lines = Limit::new(FILE_LINES_MAX, &allowed.file_lines);
    let mut function_lines = Limit::new(FUNCTION_LINES_MAX, &allowed.function_lines);
    let mut problems = Vec::new();
    for file in files {
        problems.extend(architecture(file));
        if file.is_test() || !SOURCES.iter().any(|extension| file.has_extension(extension)) {
            continue;
        }
        if !file.has_extension("rs") {
            file_lines.measure(&file.path, &file.path, 1, file.text.lines().count());
            continue;
        }
        let masked = scan::mask(&file.text);
        file_lines.measure(&file.path, &file.path, 1, scan::lines_without_tests(&masked));
        let tests = scan::test_modules(&masked);
        for function in scan::functions(&masked).iter().filter(|f| !scan::is_within(&tests, f.line)) {
            let name = format!("{}::{}", file.path, function.name);
            function_lines.measure(&name, &file.path, function.line, function.lines);
        }
        problems.extend(traits(&file.path, &masked));
    }
    problems.extend(file_lines.finish("file"));
    problems.extend(function_lines.finish("function"));
    problems
}

fn architecture(file: &File) -> Option<Problem> {
    let lines = file.text.lines().count();
    (file.path == "ARCHITECTURE.md" && lines > ARCHITECTURE_LINES_MAX).then(|| {
        Problem::new(
            &file.path,
            lines,
            format!("{lines} lines, at most {ARCHITECTURE_LINES_MAX}: link to docs/ instead"),
        )
    })
}

fn traits<'a>(path: &'a str, masked: &'a str) -> impl Iterator<Item = Problem> + 'a {
    scan::traits(masked).into_iter().filter_map(move |item| {
        let required = scan::required_methods(masked, &item).len();
        let message =
            format!("trait `{}` requires {required} methods, at most {TRAIT_METHODS_MAX}", item.name);
        (required > TRAIT_METHODS_MAX).then(|| Problem::new(path, item.line, message))
    })
}

/// One limit with its exceptions, and which of those were needed.
struct Limit<'a> {
    lines_max: usize,
    allowed: &'a BTreeMap<String, usize>,
    /// The most lines seen under each name of the allow list.
    seen: BTreeMap<&'a str, usize>,
    /// Path, line, name and lines of everything too long.
    too_long: Vec<(String, usize, String, usize)>,
}

impl<'a> Limit<'a> {
    fn new(lines_max: usize, allowed: &'a BTreeMap<String, usize>) -> Self {
        Self { lines_max, allowed, seen: BTreeMap::new(), too_long: Vec::new() }
    }

    fn measure(&mut self, name: &str, path: &str, line: usize, lines: usize) {
        let allowed = self.allowed.get_key_value(name);
        if let Some((name, _)) = allowed {
            let seen = self.seen.entry(name).or_default();
            *seen = lines.max(*seen);
        }
        if lines > allowed.map_or(self.lines_max, |(_, lines)| *lines).max(self.lines_max) {
            self.too_long.push((path.to_owned(), line, name.to_owned(), lines));
        }
    }

    fn finish(self, what: &str) -> Vec<Problem> {
        let max = self.lines_max;
        let too_long = self.too_long.into_iter().map(|(path, line, name, lines)| {
            let name = name.rsplit("::").next().unwrap_or(&name);
            let allowed =
                format!("{what} `{name}` has {lines} lines, at most {max}: split it by what it does");
            Problem::new(&path, line, allowed)
        });
        let stale = self.allowed.iter().filter_map(|(name, lines)| match self.seen.get(name.as_str()) {
            None => Some(format!("`{name}` is gone: remove the entry")),
            Some(seen) if *seen <= max => Some(format!("`{name}` fits with {seen} lines: remove the entry")),
            Some(seen) if seen < lines => {
                Some(format!("`{name}` has {seen} lines: lower the entry from {lines}"))
            }
            Some(_) => None,
        });
        too_long.chain(stale.map(|message| Problem::new(allow::PATH, 1, message))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    fn function(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    x();\n".repeat(lines - 2))
    }

    #[track_caller]
    fn check_one(
        what: &str,
        file: File,
        file_allow: &[(&str, usize)],
        fn_allow: &[(&str, usize)],
        expected: &[&str],
    ) {
        let own = |list: &[(&str, usize)]| list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let allowed = allow::List { file_lines: own(file_allow), function_lines: own(fn_allow) };
        let found: Vec<String> = check(&[file], &allowed).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{what}");
    }

    #[test]
    fn limits_hold_and_the_allow_list_only_shrinks() {
        let fits = "//\n".repeat(500);
        let long = "//\n".repeat(510);
        let split = "split it by what it does";
        check_one("fits", file("a.rs", &fits), &[], &[], &[]);
        check_one(
            "too long",
            file("a.rs", &long),
            &[],
            &[],
            &[&format!("a.rs:1: file `a.rs` has 510 lines, at most 500: {split}")],
        );
        check_one("allowed", file("a.rs", &long), &[("a.rs", 510)], &[], &[]);
        check_one(
            "allowed too much",
            file("a.rs", &long),
            &[("a.rs", 520)],
            &[],
            &["xtask/tidy-allow.toml:1: `a.rs` has 510 lines: lower the entry from 520"],
        );
        check_one(
            "not needed",
            file("a.rs", &fits),
            &[("a.rs", 520)],
            &[],
            &["xtask/tidy-allow.toml:1: `a.rs` fits with 500 lines: remove the entry"],
        );
        check_one(
            "gone",
            file("a.rs", &fits),
            &[("b.rs", 520)],
            &[],
            &["xtask/tidy-allow.toml:1: `b.rs` is gone: remove the entry"],
        );
        check_one("a test may be long", file("tests/a.rs", &long), &[], &[], &[]);
        check_one("data may be long", file("a.json", &long), &[], &[], &[]);
    }

    #[test]
    fn functions_are_measured_outside_tests() {
        check_one("fits", file("a.rs", &function(70)), &[], &[], &[]);
        check_one(
            "too long",
            file("a.rs", &format!("\n{}", function(71))),
            &[],
            &[],
            &["a.rs:2: function `long` has 71 lines, at most 70: split it by what it does"],
        );
        check_one("allowed", file("a.rs", &function(80)), &[], &[("a.rs::long", 80)], &[]);
        let in_test = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(90));
        check_one("in a test", file("a.rs", &in_test), &[], &[], &[]);
    }

    #[test]
    fn traits_require_at_most_five_methods() {
        let of = |n: usize| format!("trait T {{\n{}}}\n", "    fn f(&self);\n".repeat(n));
        check_one("five", file("a.rs", &of(5)), &[], &[], &[]);
        check_one(
            "six",
            file("a.rs", &of(6)),
            &[],
            &[],
            &["a.rs:1: trait `T` requires 6 methods, at most 5"],
        );
    }

    #[test]
    fn the_architecture_page_stays_short() {
        let page = "x\n".repeat(251);
        check_one(
            "251 lines",
            file("ARCHITECTURE.md", &page),
            &[],
            &[],
            &["ARCHITECTURE.md:251: 251 lines, at most 250: link to docs/ instead"],
        );
    }
}
