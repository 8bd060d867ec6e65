//! The text of an endpoint -> its arguments, positional and by keyword; whoever takes one removes it.

use std::{collections::VecDeque, net::Ipv6Addr};

use super::Fault;

pub(super) struct Arguments<'a> {
    said: &'a str,
    /// Where the next argument begins, if there is one.
    next: Option<usize>,
    positional: VecDeque<String>,
    keywords: Vec<(String, String)>,
}

impl<'a> Arguments<'a> {
    /// Of this text, of which nothing is read yet.
    pub(super) fn of(said: &'a str) -> Result<Self, Fault> {
        match said {
            "" => Err(Fault::Empty),
            _ => Ok(Self { said, next: Some(0), positional: VecDeque::new(), keywords: Vec::new() }),
        }
    }

    /// Reads until there are so many positional arguments; says whether there are.
    pub(super) fn read(&mut self, positional: usize) -> Result<bool, Fault> {
        while self.positional.len() < positional {
            let Some(at) = self.next else { return Ok(false) };
            self.read_one(at)?;
        }
        Ok(true)
    }

    /// The first positional argument of all those that there are, and where it begins in the text; keywords before
    /// it are read.
    pub(super) fn inner(&mut self) -> Result<Option<&'a str>, Fault> {
        debug_assert!(self.positional.is_empty(), "what the wrapper itself takes is taken");
        loop {
            let Some(at) = self.next else { return Ok(None) };
            self.read_one(at)?;
            if !self.positional.is_empty() {
                self.positional.clear();
                self.next = None;
                return Ok(Some(&self.said[at..]));
            }
        }
    }

    pub(super) fn read_all(&mut self) -> Result<(), Fault> {
        while let Some(at) = self.next {
            self.read_one(at)?;
        }
        Ok(())
    }

    fn read_one(&mut self, at: usize) -> Result<(), Fault> {
        let mut characters = self.said[at..].char_indices().peekable();
        let (mut keyword, mut value) = (None, String::new());
        self.next = loop {
            match characters.next() {
                None => break None,
                Some((end, ':')) => break Some(at + end + 1),
                Some((_, '\\')) => value.push(characters.next().ok_or(Fault::UnfinishedEscape)?.1),
                Some((_, '=')) if keyword.is_none() => keyword = Some(std::mem::take(&mut value)),
                Some((_, '[')) if value.is_empty() => {
                    let mut closed = false;
                    let inside = characters.by_ref().map(|(_, c)| c).take_while(|c| {
                        closed = *c == ']';
                        !closed
                    });
                    value = inside.collect();
                    let ends = closed && matches!(characters.peek(), None | Some((_, ':')));
                    if !ends || value.parse::<Ipv6Addr>().is_err() {
                        return Err(Fault::Brackets);
                    }
                }
                Some((_, other)) => value.push(other),
            }
        };
        match keyword {
            None => self.positional.push_back(value),
            Some(keyword) if self.keywords.iter().any(|(known, _)| *known == keyword) => {
                return Err(Fault::Twice(keyword));
            }
            Some(keyword) => self.keywords.push((keyword, value)),
        }
        Ok(())
    }

    pub(super) fn next(&mut self) -> Option<String> {
        self.positional.pop_front()
    }

    pub(super) fn keyword(&mut self, keyword: &str) -> Option<String> {
        let position = self.keywords.iter().position(|(known, _)| known == keyword)?;
        Some(self.keywords.remove(position).1)
    }

    pub(super) fn required(&mut self, keyword: &str, what: &'static str) -> Result<String, Fault> {
        self.keyword(keyword).filter(|value| !value.is_empty()).ok_or(Fault::Missing(what))
    }

    /// One of two words, if one is said.
    pub(super) fn choice<T>(
        &mut self,
        keyword: &'static str,
        must: &'static str,
        known: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(said) = self.keyword(keyword) else { return Ok(None) };
        known(&said).map(Some).ok_or(Fault::Value { keyword, said, must })
    }

    /// Whatever nobody took is a mistake.
    pub(super) fn end(mut self) -> Result<(), Fault> {
        if let Some((keyword, _)) = self.keywords.pop() {
            return Err(Fault::UnknownKeyword(keyword));
        }
        self.next().map_or(Ok(()), |argument| Err(Fault::Excess(argument)))
    }
}
