//! The scoreboard: one shared mapping, its writer's and its readers' side.
