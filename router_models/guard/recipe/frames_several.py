"""Ways to ask of several things or of two: of each group all templates ask the same, and those of two groups do not."""

from __future__ import annotations

__all__ = ["FRAMES_OF_SEVERAL"]

FRAMES_OF_SEVERAL = """
best-ones s
    what are the best {s}
    which are the best {s}
    what are some of the best {s}
    what are some good {s}
    which {s} are the best
    can you recommend some good {s}
    what are the top {s}
    what are your favorite {s}
there s
    are there any {s} {p}
    are there {s} {p}
    do they have {s} {p}
    do {s} exist {p}
number s
    how many {s} are there {p}
    what is the number of {s} {p}
    how many {s} exist {p}
    what is the total number of {s} {p}
best-ones-at s
    what are the best {s} {p}
    which are the best {s} {p}
    {p} what are the best {s}
    what are some good {s} {p}
    where are the best {s} {p}
difference nm
    what is the difference between {n} and {m}
    what's the difference between {m} and {n}
    what are the differences between {n} and {m}
    how is {n} different from {m}
    how does {n} differ from {m}
    how do {m} and {n} differ
    what is the difference between {m} and {n}
    difference between {n} and {m}
    what distinguishes {n} from {m}
    how are {n} and {m} different
similar nm
    what are the similarities between {n} and {m}
    how are {n} and {m} alike
    how are {n} and {m} similar
    what do {n} and {m} have in common
    in what way is {n} similar to {m}
relation nm
    what is the relationship between {n} and {m}
    how are {n} and {m} related
    how is {n} related to {m}
    what is the connection between {m} and {n}
versus nm
    which is better {n} or {m}
    which is better {m} or {n}
    what is better {n} or {m}
    is {n} better or {m}
    is {n} or {m} better
    {n} vs {m} which is better
    which one is better {n} or {m}
    {n} or {m} which one should i choose
better-than nm
    is {n} better than {m}
    do you think {n} is better than {m}
    would you say {n} is better than {m}
worse-than nm
    is {m} better than {n}
    do you think {m} is better than {n}
    would you say {m} is better than {n}
why-better-than nm
    why is {n} better than {m}
    what makes {n} better than {m}
    in what way is {n} better than {m}
why-worse-than nm
    why is {m} better than {n}
    what makes {m} better than {n}
    in what way is {m} better than {n}
into nm
    how do i convert {n} to {m}
    how can i convert {n} to {m}
    how do i turn {n} into {m}
    what is the best way to convert {n} to {m}
    how to convert {n} into {m}
out-of nm
    how do i convert {m} to {n}
    how can i convert {m} to {n}
    how do i turn {m} into {n}
    what is the best way to convert {m} to {n}
    how to convert {m} into {n}
affect nm
    how does {n} affect {m}
    what is the effect of {n} on {m}
    what effect does {n} have on {m}
    how is {m} affected by {n}
    what impact does {n} have on {m}
    what is the impact of {n} on {m}
affected nm
    how does {m} affect {n}
    what is the effect of {m} on {n}
    what effect does {m} have on {n}
    how is {n} affected by {m}
    what impact does {m} have on {n}
    what is the impact of {m} on {n}
go nm
    how do i get from {n} to {m}
    what is the best way to get from {n} to {m}
    how can i travel from {n} to {m}
    how do i get to {m} from {n}
    how to get to {m} from {n}
come nm
    how do i get from {m} to {n}
    what is the best way to get from {m} to {n}
    how can i travel from {m} to {n}
    how do i get to {n} from {m}
    how to get to {n} from {m}
"""
"""Lines of a name and a slot, and below each its templates: ``s`` is several ("running shoes"), ``n`` and ``m`` are two nouns, ``p`` a place or time ("in germany")."""
