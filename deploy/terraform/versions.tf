terraform {
  # State is locked by an object beside it, which needs Terraform 1.11.
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.14"
    }
  }

  # terraform init -backend-config=prod.s3.tfbackend: see backend.example.s3.tfbackend
  backend "s3" {
    use_lockfile = true
    encrypt      = true
  }
}
