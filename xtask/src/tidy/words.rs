//! Words that have no place in what is committed.
//!
//! They are put together from halves here, so that this file does not complain about itself.

use super::{File, Problem, scan};

/// Reminders need somebody who will see to them: `WORD(name): what`.
const REMINDERS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
/// Macros that stand for code that is not there yet, or was for one look only.
const UNFINISHED: [&str; 3] = [concat!("to", "do!"), concat!("unimple", "mented!"), concat!("d", "bg!")];
/// Folders that exist on somebody's machine only.
const MACHINE_FOLDERS: [&str; 3] = [concat!("/wo", "rk"), concat!("/ro", "ot"), concat!("/ho", "me")];
/// A folder beside the repository.
const OUTSIDE: &str = concat!("../sha", "red");
/// Written by a tool, or word for word by somebody else.
const EXEMPT: [&str; 2] = ["Cargo.lock", "LICENSE"];

/// Every forbidden word in a file.
pub(super) fn check(file: &File) -> Vec<Problem> {
    if EXEMPT.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let mut complain =
        |line: usize, message: String| problems.push(Problem::new(&file.path, line + 1, message));
    for (line, text) in file.text.lines().enumerate() {
        for word in REMINDERS.iter().filter(|word| has_unowned(text, word)) {
            complain(line, format!("`{word}` without an owner: write `{word}(name): what`, or do it"));
        }
        for folder in MACHINE_FOLDERS.iter().filter(|folder| has_folder(text, folder)) {
            complain(line, format!("`{folder}` is a path of one machine"));
        }
        if text.contains(OUTSIDE) {
            complain(line, format!("`{OUTSIDE}` is outside the repository"));
        }
    }
    if file.has_extension("rs") {
        for (line, text) in scan::mask(&file.text).lines().enumerate() {
            for word in UNFINISHED.iter().filter(|word| has_word(text, word)) {
                complain(line, format!("`{word}` must not be committed"));
            }
        }
    }
    problems
}

fn has_unowned(text: &str, word: &str) -> bool {
    places(text, word)
        .any(|(before, after)| !joins(before) && !after.starts_with(joins_char) && !is_owned(after))
}

fn is_owned(after: &str) -> bool {
    after
        .strip_prefix('(')
        .and_then(|rest| rest.split_once("):"))
        .is_some_and(|(owner, _)| !owner.trim().is_empty())
}

fn has_word(text: &str, word: &str) -> bool {
    places(text, word).any(|(before, _)| !joins(before))
}

/// Whether an absolute path begins with `folder`: not the middle of a longer path, not the start of a longer name.
fn has_folder(text: &str, folder: &str) -> bool {
    places(text, folder).any(|(before, after)| {
        let begins = before
            .is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.' | '/' | '}' | '~' | '*'));
        begins && after.starts_with('/')
    })
}

/// The character before, and the text after, every place of `word` in `text`.
fn places<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = (Option<char>, &'a str)> {
    text.match_indices(word).map(move |(at, _)| (text[..at].chars().next_back(), &text[at + word.len()..]))
}

fn joins(c: Option<char>) -> bool {
    c.is_some_and(joins_char)
}

fn joins_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_text(path: &str, text: &str, expected: usize) {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        assert_eq!(check(&file).len(), expected, "{text}");
    }

    #[test]
    fn reminders_need_an_owner() {
        let [reminder, _, third] = REMINDERS;
        check_text("a.md", &format!("// {reminder}: later"), 1);
        check_text("a.md", &format!("// {reminder}(): later"), 1);
        check_text("a.md", &format!("// {reminder}(ada): later"), 0);
        check_text("a.sh", &format!("mktemp /tmp/{third}{third}"), 0);
        check_text("a.sh", &format!("{third} here"), 1);
    }

    #[test]
    fn unfinished_code_is_found_in_code_only() {
        let [unfinished, _, look] = UNFINISHED;
        check_text("a.rs", &format!("fn f() {{ {unfinished}() }}"), 1);
        check_text("a.rs", &format!("fn f() {{ {look}(x); }}"), 1);
        check_text("a.rs", &format!("// {unfinished}()"), 0);
        check_text("a.md", &format!("{unfinished}()"), 0);
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        let [first, second, third] = MACHINE_FOLDERS;
        check_text("a.md", &format!("see `{first}/main`"), 1);
        check_text("a.py", &format!("open(\"{second}/x\")"), 1);
        check_text("a.sh", &format!("cd {third}/ada/x"), 1);
        check_text("a.sh", &format!("GET /v1{first}/x"), 0);
        check_text("a.sh", &format!("GET {first}space/x"), 0);
        check_text("a.md", &format!("[it]({OUTSIDE}/design.md)"), 1);
    }
}
