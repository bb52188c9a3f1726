//! JavaScript and TypeScript cut into tokens in one pass, with every bracket knowing its other end. What is broken ends with its
//! line, so that nothing is looked at twice.

/// A piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) line: u64,
    /// The other end, of what opens and closes.
    pub(super) mate: Option<usize>,
}

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A name or a word of the language.
    Word,
    Number,
    /// A string in one of the two plain quotes, with them.
    Text,
    /// Text of a template, between its ends and the expressions in it.
    Chunk,
    Regex,
    /// A string or regular expression that does not end on its line.
    Broken,
    /// What opens: a bracket, a template, an expression in a template.
    Open(Bracket),
    /// What closes.
    Close(Bracket),
    /// Any other character.
    Mark,
}

/// What opens and closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bracket {
    Round,
    Square,
    Curly,
    Template,
    /// `${` of a template, to its `}`.
    Hole,
}

const KINDS: usize = 5;

/// Words that a value follows, so that `/` begins a regular expression.
const BEFORE_VALUES: [&str; 14] = [
    "return",
    "typeof",
    "case",
    "in",
    "of",
    "do",
    "else",
    "void",
    "delete",
    "throw",
    "new",
    "await",
    "yield",
    "instanceof",
];

/// The tokens of a text, and the characters looked at to find them.
pub(super) fn tokens(text: &str) -> (Vec<Token>, usize) {
    let mut lexer =
        Lexer { text, at: 0, line: 1, steps: 0, tokens: Vec::new(), open: Vec::new(), counts: [0; KINDS] };
    while lexer.at < text.len() {
        lexer.next();
    }
    (lexer.tokens, lexer.steps)
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    line: u64,
    steps: usize,
    tokens: Vec<Token>,
    /// The tokens that opened and did not close yet.
    open: Vec<(Bracket, usize)>,
    /// How many there are of each kind.
    counts: [usize; KINDS],
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// Takes a character.
    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.steps += 1;
        self.at += next.len_utf8();
        self.line += u64::from(next == '\n');
        Some(next)
    }

    fn starts_with(&self, token: &str) -> bool {
        self.text[self.at..].starts_with(token)
    }

    fn take_while(&mut self, mut wanted: impl FnMut(char) -> bool) {
        while self.peek().is_some_and(&mut wanted) {
            self.bump();
        }
    }

    fn push(&mut self, kind: TokenKind, start: usize, line: u64) {
        self.tokens.push(Token { kind, start, end: self.at, line, mate: None });
    }

    fn next(&mut self) {
        if matches!(self.open.last(), Some((Bracket::Template, _))) {
            return self.template();
        }
        let (start, line) = (self.at, self.line);
        let Some(first) = self.peek() else { return };
        match first {
            space if space.is_whitespace() || space == '\u{feff}' => drop(self.bump()),
            '/' if self.starts_with("//") => self.take_while(|next| next != '\n'),
            '/' if self.starts_with("/*") => self.comment(),
            '/' if self.is_regex() => self.regex(),
            '"' | '\'' => self.string(first),
            '`' => self.opens(Bracket::Template),
            '(' => self.opens(Bracket::Round),
            '[' => self.opens(Bracket::Square),
            '{' => self.opens(Bracket::Curly),
            ')' => self.closes(Bracket::Round),
            ']' => self.closes(Bracket::Square),
            '}' if self.hole_is_inner() => self.closes(Bracket::Hole),
            '}' => self.closes(Bracket::Curly),
            digit if digit.is_ascii_digit() => self.number(),
            letter if is_of_word(letter) => {
                self.take_while(is_of_word);
                self.push(TokenKind::Word, start, line);
            }
            _ => {
                self.bump();
                self.push(TokenKind::Mark, start, line);
            }
        }
    }

    fn comment(&mut self) {
        self.bump();
        self.bump();
        while self.at < self.text.len() && !self.starts_with("*/") {
            self.bump();
        }
        self.bump();
        self.bump();
    }

    fn string(&mut self, quote: char) {
        let (start, line) = (self.at, self.line);
        self.bump();
        loop {
            match self.peek() {
                Some('\\') => {
                    self.bump();
                    // A line that goes on may end in two characters.
                    if self.bump() == Some('\r') && self.peek() == Some('\n') {
                        self.bump();
                    }
                }
                None | Some('\n') => return self.push(TokenKind::Broken, start, line),
                Some(next) => {
                    self.bump();
                    if next == quote {
                        return self.push(TokenKind::Text, start, line);
                    }
                }
            }
        }
    }

    /// Whether `/` begins a regular expression, by what stands before it.
    fn is_regex(&self) -> bool {
        let Some(before) = self.tokens.last() else { return true };
        let text = &self.text[before.start..before.end];
        match before.kind {
            TokenKind::Word => BEFORE_VALUES.contains(&text),
            // Behind the condition of a statement there is no value to divide.
            TokenKind::Close(Bracket::Round) => {
                let behind = before.mate.and_then(|open| self.tokens.get(open.checked_sub(1)?));
                behind.is_some_and(|word| matches!(&self.text[word.start..word.end], "if" | "while" | "for"))
            }
            TokenKind::Number | TokenKind::Text | TokenKind::Regex | TokenKind::Close(_) => false,
            // The end of an element in JSX, `</p>` or `<p/>`, is none.
            TokenKind::Mark => {
                let is_end_tag = text == "<" && before.end == self.at;
                !is_end_tag && !self.starts_with("/>")
            }
            TokenKind::Chunk | TokenKind::Broken | TokenKind::Open(_) => true,
        }
    }

    fn regex(&mut self) {
        let (start, line) = (self.at, self.line);
        let mut in_class = false;
        self.bump();
        loop {
            match self.peek() {
                None | Some('\n') => return self.push(TokenKind::Broken, start, line),
                Some('\\') => drop(self.bump()),
                Some('[') => in_class = true,
                Some(']') => in_class = false,
                Some('/') if !in_class => break,
                Some(_) => {}
            }
            if self.peek() != Some('\n') {
                self.bump();
            }
        }
        self.bump();
        self.take_while(is_of_word);
        self.push(TokenKind::Regex, start, line);
    }

    fn number(&mut self) {
        let (start, line) = (self.at, self.line);
        let is_hex = self.starts_with("0x") || self.starts_with("0X");
        let mut last = '0';
        self.take_while(|next| {
            let goes_on =
                is_of_word(next) || next == '.' || (!is_hex && "eE".contains(last) && "+-".contains(next));
            last = next;
            goes_on
        });
        self.push(TokenKind::Number, start, line);
    }

    /// What comes next in a template: its end, an expression, or text.
    fn template(&mut self) {
        let (start, line) = (self.at, self.line);
        if self.peek() == Some('`') {
            return self.closes(Bracket::Template);
        }
        if self.starts_with("${") {
            return self.opens(Bracket::Hole);
        }
        while let Some(next) = self.peek() {
            if next == '`' || self.starts_with("${") {
                break;
            }
            self.bump();
            if next == '\\' {
                self.bump();
            }
        }
        self.push(TokenKind::Chunk, start, line);
    }

    fn opens(&mut self, bracket: Bracket) {
        let (start, line) = (self.at, self.line);
        self.bump();
        if bracket == Bracket::Hole {
            self.bump();
        }
        self.open.push((bracket, self.tokens.len()));
        self.counts[bracket as usize] += 1;
        self.push(TokenKind::Open(bracket), start, line);
    }

    /// Whether `}` ends an expression in a template rather than a block in it.
    fn hole_is_inner(&self) -> bool {
        let inner = self.open.iter().rev().map(|(bracket, _)| *bracket);
        self.counts[Bracket::Hole as usize] > 0
            && inner.take_while(|bracket| *bracket != Bracket::Curly).any(|bracket| bracket == Bracket::Hole)
    }

    /// Closes the innermost of its kind. What was opened within and not closed has no other end.
    fn closes(&mut self, bracket: Bracket) {
        let (start, line) = (self.at, self.line);
        self.bump();
        let at = self.tokens.len();
        self.push(TokenKind::Close(bracket), start, line);
        while self.counts[bracket as usize] > 0 {
            let Some((kind, opened)) = self.open.pop() else { return };
            self.steps += 1;
            self.counts[kind as usize] -= 1;
            if kind == bracket {
                self.tokens[opened].mate = Some(at);
                self.tokens[at].mate = Some(opened);
                return;
            }
        }
    }
}

fn is_of_word(next: char) -> bool {
    next.is_alphanumeric() || next == '_' || next == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens, each with a letter for its kind before it.
    fn cut(text: &str) -> String {
        let letter = |token: &Token| match token.kind {
            TokenKind::Word => 'w',
            TokenKind::Number => 'n',
            TokenKind::Text => 't',
            TokenKind::Chunk => 'c',
            TokenKind::Regex => 'r',
            TokenKind::Broken => 'b',
            TokenKind::Open(_) => 'o',
            TokenKind::Close(_) => 'e',
            TokenKind::Mark => 'm',
        };
        let all = tokens(text).0;
        let pieces =
            all.iter().map(|token| [&letter(token).to_string(), &text[token.start..token.end], " "].concat());
        pieces.collect()
    }

    #[test]
    fn a_text_is_cut_as_the_language_cuts_it() {
        for (text, wanted) in [
            ("a.b // c\n1_000", "wa m. wb n1_000 "),
            ("'it\\'s' \"x\"", "t'it\\'s' t\"x\" "),
            ("/* { */ x", "wx "),
            ("f = /^[\"'/]$/gi, 2 / 3 / 4", "wf m= r/^[\"'/]$/gi m, n2 m/ n3 m/ n4 "),
            ("return /x/ ; (a) / b / c", "wreturn r/x/ m; o( wa e) m/ wb m/ wc "),
            ("`a${ {b: `c${d}`} }e`", "o` ca o${ o{ wb m: o` cc o${ wd e} e` e} e} ce e` "),
            ("<p>it's</p>\n{x}", "m< wp m> wit b's</p> o{ wx e} "),
            ("<a/> {x} </b>", "m< wa m/ m> o{ wx e} m< m/ wb m> "),
            ("if (a) /'/.test(b)", "wif o( wa e) r/'/ m. wtest o( wb e) "),
            ("= /[/\nx", "m= b/[/ wx "),
            ("1.5e-3-2 0xe+1", "n1.5e-3 m- n2 n0xe m+ n1 "),
        ] {
            assert_eq!(cut(text), wanted, "{text}");
        }
    }

    #[test]
    fn brackets_know_their_other_ends_also_among_broken_ones() {
        let mates =
            |text: &str| -> Vec<Option<usize>> { tokens(text).0.iter().map(|token| token.mate).collect() };
        assert_eq!(mates("([{}])"), [5, 4, 3, 2, 1, 0].map(Some));
        assert_eq!(mates("{(}"), [Some(2), None, Some(0)]);
        assert_eq!(mates(")]}("), [None; 4]);
    }
}
