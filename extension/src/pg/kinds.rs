//! Kinds of utility statements of which the kind says all there is to say: that they are of this node alone, or of the whole server, or plain DDL. The
//! others are looked into (`statement`).

use pgrx::pg_sys::NodeTag as Tag;

/// What a session does to itself, and upkeep that each node does for itself.
pub(super) fn is_local(tag: Tag) -> bool {
    matches!(
        tag,
        Tag::T_VariableSetStmt
            | Tag::T_VariableShowStmt
            | Tag::T_DiscardStmt
            | Tag::T_PrepareStmt
            | Tag::T_ExecuteStmt
            | Tag::T_DeallocateStmt
            | Tag::T_DeclareCursorStmt
            | Tag::T_ClosePortalStmt
            | Tag::T_FetchStmt
            | Tag::T_ListenStmt
            | Tag::T_UnlistenStmt
            | Tag::T_ConstraintsSetStmt
            | Tag::T_CheckPointStmt
            | Tag::T_LoadStmt
            | Tag::T_DoStmt
            | Tag::T_CallStmt
            | Tag::T_VacuumStmt
            | Tag::T_ReindexStmt
            | Tag::T_AlterSystemStmt
            // The version of a collation is that of the node's own libraries.
            | Tag::T_AlterCollationStmt
            | Tag::T_AlterDatabaseRefreshCollStmt
            // Travels as the tables that it makes.
            | Tag::T_ImportForeignSchemaStmt
    )
}

/// DDL of which there is nothing to say beforehand.
pub(super) fn is_plain_definition(tag: Tag) -> bool {
    matches!(
        tag,
        Tag::T_AlterExtensionContentsStmt
            | Tag::T_CreateSchemaStmt
            | Tag::T_AlterDefaultPrivilegesStmt
            | Tag::T_AlterObjectDependsStmt
            | Tag::T_AlterOperatorStmt
            | Tag::T_CreateEventTrigStmt
            | Tag::T_AlterEventTrigStmt
            | Tag::T_CreateStatsStmt
            | Tag::T_AlterStatsStmt
            | Tag::T_CompositeTypeStmt
            | Tag::T_DefineStmt
            | Tag::T_CreateEnumStmt
            | Tag::T_CreateDomainStmt
            | Tag::T_CreateRangeStmt
            | Tag::T_CreateCastStmt
            | Tag::T_CreateOpClassStmt
            | Tag::T_CreateOpFamilyStmt
            | Tag::T_AlterOpFamilyStmt
            | Tag::T_CreateConversionStmt
            | Tag::T_CreateTransformStmt
            | Tag::T_CreatePLangStmt
            | Tag::T_CreateAmStmt
            | Tag::T_AlterTSDictionaryStmt
            | Tag::T_AlterTSConfigurationStmt
            | Tag::T_CreateFdwStmt
            | Tag::T_AlterFdwStmt
            | Tag::T_CreateForeignServerStmt
            | Tag::T_AlterForeignServerStmt
            | Tag::T_CreateUserMappingStmt
            | Tag::T_AlterUserMappingStmt
            | Tag::T_CreatePublicationStmt
            | Tag::T_AlterPublicationStmt
            | Tag::T_CreateSubscriptionStmt
            | Tag::T_AlterSubscriptionStmt
    )
}
