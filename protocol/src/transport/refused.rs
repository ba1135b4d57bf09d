//! Refusals as gRPC statuses and back: the stable code travels in the metadata key `sekisho-code`.

use tonic::{Code as Grpc, Status, metadata::MetadataValue};

use crate::refusal::{Code, MAX_DETAIL, Refusal};

const CODE_KEY: &str = "sekisho-code";

/// The gRPC status that carries `refusal`.
pub fn status_of(refusal: &Refusal) -> Status {
    let grpc = match refusal.code {
        Code::PermitUnknown | Code::ApplicationUnknown | Code::ResultUnknown => Grpc::NotFound,
        Code::BadSignature | Code::QuorumNotMet | Code::DuplicateSigner | Code::UnknownPerson | Code::NotOnRoster => {
            Grpc::Unauthenticated
        }
        Code::PermitExpired
        | Code::PermitNotYetValid
        | Code::PermitRevoked
        | Code::PermitSuperseded
        | Code::Suspended
        | Code::HolderNotPermitted
        | Code::TableNotPermitted
        | Code::ColumnNotPermitted
        | Code::StatisticNotPermitted
        | Code::Policy
        | Code::PermitWaiting
        | Code::PermitRefused
        | Code::QueryNotListed
        | Code::RegulatorOrder
        | Code::PurposeProhibited
        | Code::ConflictOfInterest
        | Code::OutputRefused
        | Code::ExactRefused
        | Code::NotAuthorised
        | Code::NotAddressed => Grpc::PermissionDenied,
        Code::StaleMessage
        | Code::ReplayedNonce
        | Code::StaleStatus
        | Code::StaleRoster
        | Code::OlderDocument
        | Code::NotReviewed
        | Code::Supersession
        | Code::AwaitingReview
        | Code::ExactWaiting
        | Code::NotWitnessed
        | Code::SchemaMismatch
        | Code::SourceChanged
        | Code::LedgerRolledBack
        | Code::LedgerForked => Grpc::FailedPrecondition,
        Code::BudgetQuery
        | Code::BudgetStudy
        | Code::BudgetLifetime
        | Code::BudgetWindow
        | Code::Busy
        | Code::TooManyRequests => Grpc::ResourceExhausted,
        Code::RowLevel
        | Code::Terms
        | Code::UnboundedColumn
        | Code::UnknownDomain
        | Code::SqlSyntax
        | Code::SqlUnsupported
        | Code::SqlUnknownName
        | Code::ApplicationIncomplete
        | Code::WiderThanApplication
        | Code::Malformed => Grpc::InvalidArgument,
        Code::TooLarge => Grpc::OutOfRange,
        Code::Unavailable | Code::Offline => Grpc::Unavailable,
        Code::NoAnswer => Grpc::Aborted,
    };
    let detail: String = refusal.detail.chars().take(MAX_DETAIL).collect();
    let mut status = Status::new(grpc, detail);
    status.metadata_mut().insert(CODE_KEY, MetadataValue::from_static(refusal.code.as_str()));
    status
}

/// The refusal that `status` carries; without a stable code, what gRPC itself says of size, time and reach.
pub fn refusal_of(status: &Status) -> Refusal {
    let detail: String = status.message().chars().take(MAX_DETAIL).collect();
    let named = status.metadata().get(CODE_KEY).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let code = named.unwrap_or(match status.code() {
        Grpc::OutOfRange => Code::TooLarge,
        Grpc::ResourceExhausted => Code::Busy,
        Grpc::Unavailable | Grpc::DeadlineExceeded | Grpc::Cancelled => Code::Offline,
        Grpc::InvalidArgument | Grpc::DataLoss | Grpc::Unimplemented => Code::Malformed,
        Grpc::Ok
        | Grpc::Unknown
        | Grpc::NotFound
        | Grpc::AlreadyExists
        | Grpc::PermissionDenied
        | Grpc::FailedPrecondition
        | Grpc::Aborted
        | Grpc::Internal
        | Grpc::Unauthenticated => Code::Unavailable,
    });
    Refusal::new(code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_survives_grpc() {
        for code in Code::ALL {
            let refusal = Refusal::new(*code, "what was wrong");
            assert_eq!(refusal_of(&status_of(&refusal)), refusal);
        }
    }

    #[test]
    fn a_message_over_the_size_limit_is_too_large() {
        assert_eq!(refusal_of(&Status::out_of_range("too large")).code, Code::TooLarge);
    }
}
